"""Learning curves (the paper's Figure 5), and the final loss of every trial by learning rate."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitbench.analysis import style
from vitbench.analysis.figure_spec import several
from vitbench.analysis.findings.arms import by_settings, in_words, shape_names, standing_in
from vitbench.analysis.results import Results, computed_once

_MAX_PANELS = 6
_CURVE = ("lr", "epoch", "split", "mean", "low", "high", "seeds", "diverged")
_LOSSES = ("train_loss", "val_loss", "test_loss")
_FINAL = ("trial_id", "lr", "seed", "status", "initial_val_loss", *_LOSSES)


@computed_once
def curves_data(results: Results) -> pd.DataFrame | None:
    """Learning curves: of a grid the means over seeds, of a search those of every trial.

    Columns of a grid: the varying settings, `lr`, `epoch`, `split`, `mean`, `low`, `high` (lowest
    and highest seed), `seeds`, `diverged`; of a search: `trial_id`, `epoch`, `val_loss`, `status`,
    `best` (whether it is the best trial of all).
    """
    if results.sweep["search"]["method"] != "grid":
        trials = results.trials[["trial_id", "status", "best_val_loss"]]
        rows = results.epochs[["trial_id", "epoch", "val_loss"]].merge(trials, on="trial_id")
        rows["best"] = rows["best_val_loss"] == trials["best_val_loss"].min()
        return several(rows.drop(columns="best_val_loss"))
    return mean_curves(results.epochs, results.trials, [*shape_names(results), "lr"])


def mean_curves(epochs: pd.DataFrame, trials: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Means over seeds of training and test loss by the settings `names`, epoch and split.

    The loss before training stands in for a model from the epoch at which it diverged to its last
    planned one, and a mean is there for an epoch only where all seeds of its arm have that epoch:
    no mean is of those that survived. `diverged` counts the seeds that had diverged by then.

    Args:
        epochs: the table of epochs.
        trials: the trials that are averaged, with the columns `names`.
        names: settings that make an arm.
    """
    kept = ["trial_id", "status", "diverged_epoch", "initial_val_loss", "planned_epochs", *names]
    rows = epochs.merge(trials[kept], on="trial_id")
    gone = trials.loc[trials["status"] == "diverged", kept]
    last = gone["planned_epochs"].fillna(epochs["epoch"].max()).astype(int)
    missing = gone.loc[gone.index.repeat(last)].assign(
        epoch=[epoch for end in last for epoch in range(1, end + 1)]
    )
    rows = pd.concat([rows, missing], ignore_index=True)
    rows = rows.drop_duplicates(["trial_id", "epoch"])
    rows["diverged"] = (rows["status"] == "diverged") & (
        rows["epoch"] >= rows["diverged_epoch"].fillna(1)
    )
    parts = []
    for split in ("train", "test"):
        loss = rows[f"{split}_loss"].astype(float)
        rows["loss"] = loss.mask(rows["diverged"], rows["initial_val_loss"].astype(float))
        part = rows.groupby([*names, "epoch"], dropna=False).agg(
            mean=("loss", "mean"), low=("loss", "min"), high=("loss", "max"),
            seeds=("loss", "count"), diverged=("diverged", "sum"),
        ).reset_index()  # fmt: skip
        most = part.groupby(names, dropna=False)["seeds"].transform("max") if names else None
        whole = part["seeds"] == (part["seeds"].max() if most is None else most)
        parts.append(part[whole].assign(split=split))
    return pd.concat(parts, ignore_index=True)


def draw_curves(data: pd.DataFrame, title: str) -> Figure:
    """Draw the curves of a grid or of a search."""
    return _draw_means(data, title) if "split" in data else _draw_trials(data, title)


def _draw_means(data: pd.DataFrame, title: str) -> Figure:
    """Two columns, train and test; one line per learning rate, a band over seeds from three on."""
    names = [name for name in data.columns if name not in _CURVE]
    cells = data[names].drop_duplicates().head(_MAX_PANELS) if names else None
    count = len(cells) if cells is not None else 1
    with style.canvas(9.0, 3.4 * count + 0.4, title) as figure:
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
                heading = in_words(names, cell) + ": "
            for ax, split in zip(axes[number], ("train", "test"), strict=True):
                lines = part[part["split"] == split]
                for lr, colour in colours.items():
                    style.mean_line(ax, lines[lines["lr"] == lr], colour, f"{lr:g}")
                ax.xaxis.set_major_locator(MaxNLocator(integer=True))
                style.bound_losses(ax, lines["mean"])
                ax.set_title(f"{heading}{split} loss")
                ax.set_xlabel("epoch")
            axes[number][0].set_ylabel("cross entropy (nats)")
        handles, labels = axes[0][1].get_legend_handles_labels()
        figure.legend(handles, labels, title="learning rate", loc="outside right center")
    return figure


def _draw_trials(data: pd.DataFrame, title: str) -> Figure:
    """A line per trial, pale where it was stopped early; the best one stands out."""
    with style.canvas(7.5, 4.0, title, wrap=84) as figure:
        ax = figure.subplots()
        named: set[str] = set()
        for _, part in data.groupby("trial_id", sort=False):
            best, stopped = bool(part["best"].iloc[0]), part["status"].iloc[0] == "stopped"
            kind = "best" if best else ("stopped early" if stopped else "ran on")
            colour = style.COLOURS[1] if best else style.COLOURS[0]
            ax.plot(
                part["epoch"],
                part["val_loss"],
                color=colour,
                lw=2.4 if best else 1,
                alpha=1 if best else (0.35 if stopped else 0.7),
                marker="o" if len(part) < 30 else "",
                ms=3,
                markerfacecolor="none" if stopped else colour,
                zorder=3 if best else 2,
                label=kind if kind not in named else None,
            )
            named.add(kind)
        style.bound_losses(ax, data["val_loss"])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("epoch")
        ax.set_ylabel("validation loss (nats)")
        ax.legend()
    return figure


def describe_curves(data: pd.DataFrame) -> str:
    """The losses at the end: of a grid by learning rate, of a search the best."""
    if "split" not in data:
        best = data[data["best"]]
        return (
            f"Validation loss by epoch of {data['trial_id'].nunique()} trials; the best one "
            f"reaches {best['val_loss'].min():.3g}."
        )
    last = data[(data["split"] == "test") & (data["epoch"] == data["epoch"].max())]
    by_lr = last.groupby("lr").agg(mean=("mean", "mean"), gone=("diverged", "sum"))
    ends = ", ".join(
        f"{lr:g}: {row['mean']:.3g}"
        + (f" ({int(row['gone'])} diverged, at the loss before training)" if row["gone"] else "")
        for lr, row in list(by_lr.sort_index(ascending=False).iterrows())[:12]
    )
    return f"Mean test loss at epoch {int(data['epoch'].max())} by learning rate: {ends}."


def loss_by_lr_data(results: Results) -> pd.DataFrame | None:
    """Final losses of every trial: the varying settings, lr, seed, status and three losses.

    None for a search, for a single learning rate, and where no trial has a loss.
    """
    trials = results.trials
    compared = trials["lr"].nunique() > 1 and trials["train_loss"].notna().any()
    if results.sweep["search"]["method"] != "grid" or not compared:
        return None
    names = shape_names(results)
    columns = ["trial_id", *names, *_FINAL[1:]]
    return trials[columns].sort_values([*names, "lr", "seed"]).reset_index(drop=True)


def draw_loss_by_lr(data: pd.DataFrame, title: str) -> Figure:
    """Loss against learning rate: a point per trial, a line through the means over seeds.

    Diverged trials stand at the upper edge as crosses; stopped ones are hollow.
    """
    names = [name for name in data.columns if name not in _FINAL]
    with style.canvas(9.0, 3.6, title) as figure:
        axes = figure.subplots(1, 3, sharey=True)
        groups = by_settings(data, names)
        for ax, split in zip(axes, ("train", "val", "test"), strict=True):
            column = f"{split}_loss"
            for number, (cell, part) in enumerate(groups):
                colour = style.COLOURS[number % len(style.COLOURS)]
                label = in_words(names, cell)
                means = standing_in(part, column).groupby(part["lr"]).mean()
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
    return figure


def describe_loss_by_lr(data: pd.DataFrame) -> str:
    """Where the mean validation loss is lowest, and how many trials diverged."""
    means = standing_in(data, "val_loss").groupby(data["lr"]).mean().dropna()
    if means.empty:
        return "No trial has a validation loss."
    gone = int((data["status"] == "diverged").sum())
    return (
        f"{len(data)} trials at {data['lr'].nunique()} learning rates from {data['lr'].min():.3g} "
        f"to {data['lr'].max():.3g}; the mean validation loss is lowest, {means.min():.3g}, at "
        f"{means.idxmin():.3g}; {gone} diverged and count{'s' if gone == 1 else ''} with the loss "
        f"before training."
    )
