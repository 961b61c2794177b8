"""Learning curves (the paper's Figure 5), and the final loss of every trial by learning rate."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

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
    if results.is_grid:
        return mean_curves(results.epochs, results.trials, [*shape_names(results), "lr"])
    trials = results.trials[["trial_id", "status", "best_val_loss"]]
    rows = results.epochs[["trial_id", "epoch", "val_loss"]].merge(trials, on="trial_id")
    rows["best"] = rows["best_val_loss"] == trials["best_val_loss"].min()
    return several(rows.drop(columns="best_val_loss"))


def mean_curves(epochs: pd.DataFrame, trials: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Means over seeds of training and test loss by the settings `names`, epoch and split.

    The loss before training stands in for a model from the epoch at which it diverged to its last
    planned one, and a mean is there for an epoch only where all seeds of its arm have that epoch:
    no mean is of those that survived. `diverged` counts the seeds that had diverged by then.
    """
    kept = ["trial_id", "status", "diverged_epoch", "initial_val_loss", "planned_epochs", *names]
    rows = epochs.merge(trials[kept], on="trial_id")
    gone = trials.loc[trials["status"] == "diverged", kept]
    last = gone["planned_epochs"].fillna(epochs["epoch"].max()).astype(int)
    missing = gone.loc[gone.index.repeat(last)].assign(
        epoch=[epoch for end in last for epoch in range(1, end + 1)]
    )
    rows = pd.concat([rows, missing], ignore_index=True).drop_duplicates(["trial_id", "epoch"])
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
        seeds = part.groupby(names, dropna=False)["seeds"] if names else part["seeds"]
        most = seeds.transform("max") if names else part["seeds"].max()
        parts.append(part[part["seeds"] == most].assign(split=split))
    return pd.concat(parts, ignore_index=True)


def draw_curves(data: pd.DataFrame, title: str) -> Figure:
    """Draw the curves of a grid or of a search."""
    return _draw_means(data, title) if "split" in data else _draw_trials(data, title)


def _draw_means(data: pd.DataFrame, title: str) -> Figure:
    """Two columns, train and test; one line per learning rate, a band over seeds from three on."""
    names = [name for name in data.columns if name not in _CURVE]
    cells = by_settings(data, names)[:_MAX_PANELS]
    colours = style.colour_of(sorted(data["lr"].unique(), reverse=True))
    with style.canvas(9.0, 3.4 * len(cells) + 0.4, title) as figure:
        axes = figure.subplots(len(cells), 2, squeeze=False, sharex=True, sharey="row")
        for row, (cell, part) in zip(axes, cells, strict=True):
            heading = in_words(names, cell) + ": " if names else ""
            for ax, split in zip(row, ("train", "test"), strict=True):
                lines = part[part["split"] == split]
                for lr, colour in colours.items():
                    style.mean_line(ax, lines[lines["lr"] == lr], colour, f"{lr:g}")
                style.whole_numbers(ax)
                style.bound_losses(ax, lines["mean"])
                ax.set_title(f"{heading}{split} loss")
            row[0].set_ylabel("cross entropy (nats)")
        handles, labels = axes[0][1].get_legend_handles_labels()
        figure.legend(handles, labels, title="learning rate", loc="outside right center")
    return figure


def _draw_trials(data: pd.DataFrame, title: str) -> Figure:
    """A line per trial, pale where it was stopped early; the best one stands out."""
    blue, orange = style.COLOURS[:2]
    looks: dict[str, dict[str, Any]] = {
        "best": {"color": orange, "lw": 2.4, "zorder": 3},
        "stopped early": {"color": blue, "lw": 1, "alpha": 0.35, "zorder": 2, "mfc": "none"},
        "ran on": {"color": blue, "lw": 1, "alpha": 0.7, "zorder": 2},
    }
    with style.canvas(7.5, 4.0, title, wrap=84) as figure:
        ax = figure.subplots()
        for _, part in data.groupby("trial_id", sort=False):
            stopped = part["status"].iloc[0] == "stopped"
            kind = "best" if part["best"].iloc[0] else ("stopped early" if stopped else "ran on")
            label = None if kind in ax.get_legend_handles_labels()[1] else kind
            dot = "o" if len(part) < 30 else ""
            ax.plot(part["epoch"], part["val_loss"], marker=dot, ms=3, label=label, **looks[kind])
        style.bound_losses(ax, data["val_loss"])
        style.whole_numbers(ax)
        ax.set_ylabel("validation loss (nats)")
        ax.legend()
    return figure


def describe_curves(data: pd.DataFrame) -> str:
    """The losses at the end: of a grid by learning rate, of a search the best."""
    if "split" not in data:
        best = data.loc[data["best"], "val_loss"].min()
        return (
            f"Validation loss by epoch of {data['trial_id'].nunique()} trials; the best one "
            f"reaches {best:.3g}."
        )
    last = data[(data["split"] == "test") & (data["epoch"] == data["epoch"].max())]
    by_lr = last.groupby("lr").agg(mean=("mean", "mean"), gone=("diverged", "sum"))
    ends = ", ".join(
        f"{row.Index:g}: {row.mean:.3g}"
        + (f" ({row.gone} diverged, at the loss before training)" if row.gone else "")
        for row in by_lr[::-1].head(12).itertuples()
    )
    return f"Mean test loss at epoch {int(data['epoch'].max())} by learning rate: {ends}."


def loss_by_lr_data(results: Results) -> pd.DataFrame | None:
    """Final losses of every trial: the varying settings, lr, seed, status and three losses.

    None for a search, for a single learning rate, and where no trial has a loss.
    """
    trials = results.trials
    compared = trials["lr"].nunique() > 1 and trials["train_loss"].notna().any()
    if not results.is_grid or not compared:
        return None
    names = shape_names(results)
    columns = ["trial_id", *names, *_FINAL[1:]]
    return trials[columns].sort_values([*names, "lr", "seed"]).reset_index(drop=True)


def draw_loss_by_lr(data: pd.DataFrame, title: str) -> Figure:
    """Loss against learning rate: a point per trial, a line through the means over seeds.

    Diverged trials stand at the upper edge as crosses; stopped ones are hollow.
    """
    names = [name for name in data.columns if name not in _FINAL]
    groups = by_settings(data, names)
    with style.canvas(9.0, 3.6, title) as figure:
        axes = figure.subplots(1, 3, sharey=True)
        for ax, column in zip(axes, _LOSSES, strict=True):
            for number, (cell, part) in enumerate(groups):
                colour = style.COLOURS[number % len(style.COLOURS)]
                means = standing_in(part, column).groupby(part["lr"]).mean()
                ax.plot(means.index, means, color=colour, label=in_words(names, cell) or None)
                for status, mark in style.MARKS.items():
                    some = part[part["status"] == status]
                    ax.plot(some["lr"], some[column], ls="", color=colour, ms=5, **mark)
                gone, above = part.loc[part["status"] == "diverged", "lr"], ax.get_xaxis_transform()
                (crosses,) = ax.plot(gone, [0.97] * len(gone), "x", color=colour, transform=above)
                crosses.set_in_layout(False)
            style.bound_losses(ax, data[column])
            split = column.removesuffix("_loss").replace("val", "validation")
            ax.set(xscale="log", title=f"{split} loss", xlabel="learning rate")
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
