"""Learning curves by learning rate (the paper's Figure 5) and loss against learning rate."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitbench.analysis import style
from vitbench.analysis.results import Results

SHAPE_COLUMNS = ("label", "width", "depth", "heads", "patch_grid", "batch_size", "optimizer")
_MAX_PANELS = 6


def panels(trials: pd.DataFrame) -> tuple[list[str], list[dict[str, object]]]:
    """The settings beside learning rate and seed that vary, and their combinations."""
    names = [name for name in SHAPE_COLUMNS if trials[name].nunique(dropna=False) > 1]
    if not names:
        return [], [{}]
    combinations = trials[names].drop_duplicates()
    return names, [
        dict(zip(names, row, strict=True)) for row in combinations.itertuples(index=False)
    ]


def learning_curves_data(results: Results) -> pd.DataFrame:
    """Mean loss over seeds by setting, learning rate, epoch and split, with lowest and highest.

    Columns: the varying settings, `lr`, `epoch`, `split`, `mean`, `low`, `high`, `seeds`.
    """
    names, _ = panels(results.trials)
    keys = ["trial_id", "lr", *names]
    rows = results.epochs.merge(results.trials[keys], on="trial_id")
    parts = []
    for split in ("train", "test"):
        grouped = rows.groupby([*names, "lr", "epoch"], dropna=False)[f"{split}_loss"]
        part = grouped.agg(mean="mean", low="min", high="max", seeds="count").reset_index()
        parts.append(part.assign(split=split))
    return pd.concat(parts, ignore_index=True)


def draw_learning_curves(data: pd.DataFrame, title: str) -> Figure:
    """Two columns, train and test; one line per learning rate, a band over seeds from three on."""
    fixed = ("lr", "epoch", "split", "mean", "low", "high", "seeds")
    names = [name for name in data.columns if name not in fixed]
    cells = data[names].drop_duplicates().head(_MAX_PANELS) if names else None
    count = len(cells) if cells is not None else 1
    figure = style.new_figure(9.0, 3.4 * count + 0.4)
    with matplotlib.rc_context(style.RC):
        axes = figure.subplots(count, 2, squeeze=False, sharex=True, sharey="row")
        colours = style.colour_of(sorted(data["lr"].unique(), reverse=True))
        for number in range(count):
            part, heading = data, ""
            if cells is not None:
                cell = cells.iloc[number]
                for name in names:
                    part = part[
                        (part[name] == cell[name]) | (part[name].isna() & pd.isna(cell[name]))
                    ]
                heading = ", ".join(f"{name} {cell[name]}" for name in names) + ": "
            for ax, split in zip(axes[number], ("train", "test"), strict=True):
                _lines(ax, part[part["split"] == split], colours)
                style.bound_losses(ax, part.loc[part["split"] == split, "mean"])
                ax.set_title(f"{heading}{split} loss")
                ax.set_xlabel("epoch")
            axes[number][0].set_ylabel("cross entropy (nats)")
        handles, labels = axes[0][1].get_legend_handles_labels()
        figure.legend(handles, labels, title="learning rate", loc="outside right center")
        figure.suptitle(style.wrapped(title))
    return figure


def _lines(ax: Axes, data: pd.DataFrame, colours: dict[float, str]) -> None:
    for lr, colour in colours.items():
        line = data[data["lr"] == lr]
        few = len(line) < 30
        ax.plot(
            line["epoch"],
            line["mean"],
            color=colour,
            label=f"{lr:g}",
            marker="o" if few else "",
            ms=3,
        )
        if line["seeds"].max() >= 3:
            ax.fill_between(
                line["epoch"], line["low"], line["high"], color=colour, alpha=0.15, lw=0
            )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def loss_by_lr_data(results: Results) -> pd.DataFrame:
    """Final losses of every trial: the varying settings, lr, seed, status and three losses."""
    names, _ = panels(results.trials)
    columns = ["trial_id", *names, "lr", "seed", "status", "train_loss", "val_loss", "test_loss"]
    return results.trials[columns].sort_values([*names, "lr", "seed"]).reset_index(drop=True)


def draw_loss_by_lr(data: pd.DataFrame, title: str) -> Figure:
    """Loss against learning rate: a point per trial, a line through the means over seeds.

    Diverged trials stand at the upper edge as crosses; stopped ones are hollow.
    """
    fixed = ("trial_id", "lr", "seed", "status", "train_loss", "val_loss", "test_loss")
    names = [name for name in data.columns if name not in fixed]
    figure = style.new_figure(9.0, 3.6)
    with matplotlib.rc_context(style.RC):
        axes = figure.subplots(1, 3, sharey=True)
        groups = list(data.groupby(names, dropna=False, sort=False)) if names else [((), data)]
        for ax, split in zip(axes, ("train", "val", "test"), strict=True):
            column = f"{split}_loss"
            for number, (cell, part) in enumerate(groups):
                colour = style.COLOURS[number % len(style.COLOURS)]
                values = cell if isinstance(cell, tuple) else (cell,)
                label = ", ".join(f"{n} {v}" for n, v in zip(names, values, strict=False))
                means = part[part["status"] == "finished"].groupby("lr")[column].mean()
                ax.plot(means.index, means, color=colour, label=label or None)
                for status, some in part.groupby("status"):
                    mark = style.MARKS.get(str(status))
                    shown = some.dropna(subset=[column])
                    if mark is not None:
                        ax.plot(shown["lr"], shown[column], ls="", color=colour, ms=5, **mark)
                diverged = part.loc[part["status"] == "diverged", "lr"]
                for line in ax.plot(
                    diverged,
                    [0.97] * len(diverged),
                    ls="",
                    color=colour,
                    transform=ax.get_xaxis_transform(),
                    **style.MARKS["diverged"],
                ):
                    line.set_in_layout(False)
            style.bound_losses(ax, data[column])
            ax.set_xscale("log")
            ax.set_title("validation loss" if split == "val" else f"{split} loss")
            ax.set_xlabel("learning rate")
        axes[0].set_ylabel("cross entropy at the last epoch (nats)")
        if names and len(groups) <= _MAX_PANELS:
            axes[2].legend(fontsize=8)
        figure.suptitle(style.wrapped(title))
    return figure
