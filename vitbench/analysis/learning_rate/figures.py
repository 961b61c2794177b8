"""Figures on the learning rate: curves (the paper's Figure 5), sensitivity, losses, heat maps."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullLocator

from vitbench.analysis import style
from vitbench.analysis.figure_spec import FigureSpec, several
from vitbench.analysis.findings.arms import (
    by_settings,
    column_of,
    in_words,
    setting,
    shape_names,
    standing_in,
)
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.learning_rate import sensitivity as lr_sensitivity
from vitbench.analysis.results import Results, computed_once
from vitbench.config import AXES
from vitbench.records.tables import not_evaluated
from vitbench.words import decimal

_MAX_LINES = 6
_MAX_PANELS = 6
_MAX_TOGETHER = 8  # settings in one panel
_MEANS = ("lr", "epoch", "split", "mean", "low", "high", "seeds", "diverged")
SPLITS = {"train": "training", "val": "validation", "test": "test"}
_LOSSES = ("train_loss", "val_loss", "test_loss")
_FINAL = ("trial_id", "lr", "seed", "status", "initial_val_loss", *_LOSSES)
_CURVE = ("lr", "loss", "low", "high", "seeds", "diverged", "initial", "safe_low", "safe_high")
_HEAT = ("lr", "setting", "value", "loss", "seeds", "best")


def sensitivity_data(results: Results) -> pd.DataFrame | None:
    """Mean validation loss by learning rate of each model with at least five rates.

    Columns: the varying settings and _CURVE; None where no model has enough rates.
    """
    if not results.is_grid and "lr" in results.sweep["search"]["space"]:
        return None  # drawn by a sampler: no common rates
    names, parts = shape_names(results), []
    trials = results.trials[[*names, *lr_sensitivity.NEEDED]]
    for cell, part in by_settings(trials, names, sort=True):
        losses = lr_sensitivity.losses_by_seed(part)
        model = lr_sensitivity.measure(part, losses=losses)
        if not model.why_not:
            window = {"safe_low": model.safe_low, "safe_high": model.safe_high}
            more = {**dict(zip(names, cell, strict=True)), **window}
            parts.append(lr_sensitivity.curve(part, losses).assign(**more)[[*names, *_CURVE]])
    return pd.concat(parts, ignore_index=True) if parts else None


def draw_sensitivity(data: pd.DataFrame, title: str) -> Figure:
    """A line per model through the means over seeds, its t interval, the loss before training.

    The safe window is a bar along the lower edge; rates at which seeds diverged carry a cross.
    """
    names = [name for name in data.columns if name not in _CURVE]
    cells = by_settings(data, names, sort=True)
    if len(cells) > _MAX_LINES:
        title = style.with_note(title, f"the first {_MAX_LINES} of {len(cells)} settings")
        cells = cells[:_MAX_LINES]
    colours = style.colour_of([in_words(names, cell) for cell, _ in cells])
    with style.canvas(4.3, title) as figure:
        ax = figure.subplots()
        for number, (cell, part) in enumerate(cells):
            _sensitivity_line(ax, part, number, colours[in_words(names, cell)])
        ax.set(xscale="log", yscale="log")
        low, high = ax.get_ylim()
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if high < 30 * low else (1, 3)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter("{x:g}")
        ax.axhline(data["initial"].mean(), color="0.4", lw=1, ls=":", label="before training")
        ax.set(xlabel="learning rate", ylabel="validation loss at the end (nats)")
        ends = [(float(part["loss"].iloc[-1]), in_words(names, cell)) for cell, part in cells]
        style.label_ends(ax, [(y, text, colours[text]) for y, text in ends if text])
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _sensitivity_line(ax: Axes, part: pd.DataFrame, number: int, colour: str) -> None:
    mean = "mean over seeds" if number == 0 else None
    ax.plot(part["lr"], part["loss"], color=colour, marker="o", ms=4, label=mean)
    known, gone = part.dropna(subset=["low", "high"]), part[part["diverged"] > 0]
    interval = "95 % t interval over seeds" if number == 0 and len(known) else None
    floor = 0.5 * float(part["loss"].min())  # a log axis has no place for a bound below zero
    low = known["low"].clip(lower=floor)
    ax.fill_between(known["lr"], low, known["high"], color=colour, alpha=0.15, lw=0, label=interval)
    diverged = "some seeds diverged" if number == 0 and len(gone) else None
    ax.plot(gone["lr"], gone["loss"], "x", ms=10, color=colour, label=diverged)
    safe = part[["safe_low", "safe_high"]].iloc[0]
    if math.isfinite(safe["safe_low"]):
        ax.hlines(
            0.02 + 0.025 * number, *safe, color=colour, lw=5, alpha=0.6,
            transform=ax.get_xaxis_transform(),
            label=f"within {lr_sensitivity.DELTA_NATS} nats of the lowest" if number == 0 else "",
        )  # fmt: skip


def describe_sensitivity(data: pd.DataFrame) -> Finding:
    """The lowest mean loss, and the safe window of that model."""
    best = data.sort_values("loss").iloc[0]
    names = data.columns.drop(list(_CURVE))
    return Finding(
        kind="drawn_sensitivity",
        arms=(in_words(names, best[names]),),
        metric="val_loss",
        effect=best["loss"],
        facts={
            "lowest_lr": data["lr"].min(),
            "highest_lr": data["lr"].max(),
            **best[["lr", "safe_low", "safe_high"]],
        },
    )


def heat_data(results: Results, axis: str) -> pd.DataFrame | None:
    """Mean capped loss by learning rate and one setting, averaged over all other settings.

    Columns: `lr`, `setting` (its name), `value`, `loss`, `seeds` (runs averaged), `best` (whether
    it is the best rate of its value). None but for a grid over two to twelve learning rates and
    two to eight values of the setting, with the same other settings at each rate: a mean over
    models is no mean of a rate that one of them alone was given.
    """
    trials = results.trials
    drawn = results.is_grid and axis in shape_names(results)
    if not (drawn and 2 <= trials["lr"].nunique() <= 12 and 2 <= trials[axis].nunique() <= 8):
        return None
    others = [name for name in shape_names(results) if name != axis]
    if others and trials.groupby(others, dropna=False)["lr"].agg(frozenset).nunique() > 1:
        return None
    frame = trials.assign(loss=standing_in(trials, "val_loss"))
    grouped = frame.dropna(subset=["loss"]).groupby([axis, "lr"])["loss"]
    data = grouped.agg(loss="mean", seeds="count").reset_index()
    data["best"] = data["loss"] == data.groupby(axis)["loss"].transform("min")
    data = data.rename(columns={axis: "value"}).assign(setting=axis)
    return data[list(_HEAT)].sort_values(["value", "lr"]).reset_index(drop=True)


def draw_heat(data: pd.DataFrame, title: str) -> Figure:
    """Cells with their loss in figures; the best rate of each row is framed."""
    table = data.pivot_table(index="value", columns="lr", values="loss")
    rows, columns = table.shape
    with style.canvas(1.7 + 0.45 * rows, title, grid=None) as figure:
        ax = figure.subplots()
        values = np.log(table.to_numpy(dtype=float))
        image = ax.imshow(values, cmap="cividis_r", aspect="auto")
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for i, j in np.argwhere(np.isfinite(values)):
            ink = "white" if values[i, j] > middle else "black"
            text = f"{math.exp(values[i, j]):.3g}"
            ax.text(j, i, text, ha="center", va="center", color=ink, fontsize=8)
        for i, j in np.argwhere(table.eq(table.min(axis=1), axis="index").to_numpy()):
            corner = (j - 0.46, i - 0.44)
            ax.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, ec=style.COLOURS[1], lw=2.5))
        ax.set_xticks(range(columns), [decimal(float(lr)) for lr in table.columns])
        ax.set_yticks(range(rows), table.index.astype(str))
        ax.set_xlabel("learning rate (framed: lowest loss of its row)")
        ax.set_ylabel(data["setting"].iloc[0].replace("_", " "))
        bar = figure.colorbar(image, ax=ax)
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{math.exp(value):.2g}")
        bar.set_label("validation loss (nats, log colours)")
    return figure


def describe_heat(data: pd.DataFrame) -> Finding:
    """The best learning rate of each value of the setting."""
    name = str(data["setting"].iloc[0])
    best = data[data["best"]]
    rows = best.assign(named=[setting(name, value) for value in best["value"]])
    return Finding("drawn_heat", metric="val_loss", facts={"best": rows.to_dict("records")})


@computed_once
def curves_data(results: Results) -> pd.DataFrame | None:
    """Learning curves: of a grid the means over seeds, of a search those of every trial.

    Columns of a grid: the varying settings, `lr`, `epoch`, `split`, `mean`, `low`, `high` (lowest
    and highest seed), `seeds`, `diverged`; of a search: `trial_id`, `epoch`, `val_loss`, `status`,
    `best` (whether it is the best trial of all), `train_loss`, `test_loss`.
    """
    if results.is_grid:
        return mean_curves(results.epochs, results.trials, [*shape_names(results), "lr"])
    trials = results.trials[["trial_id", "status", "best_val_loss"]]
    evaluated = results.epochs[~not_evaluated(results.epochs)]
    rows = evaluated[["trial_id", "epoch", "val_loss"]].merge(trials, on="trial_id")
    rows["best"] = rows["best_val_loss"] == trials["best_val_loss"].min()
    others = results.epochs[["trial_id", "epoch", "train_loss", "test_loss"]]
    return several(rows.drop(columns="best_val_loss").merge(others, on=["trial_id", "epoch"]))


def mean_curves(epochs: pd.DataFrame, trials: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Means over seeds of the losses of all splits by the settings `names`, epoch and split.

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
    for split in SPLITS:
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


@dataclass(frozen=True)
class Lines:
    """How learning curves stand in panels: a line per learning rate, or per setting.

    Attributes:
        what: lines are of: `learning rate`, or `setting`.
        cells: (heading, rows with a column `line`) of each row of panels.
        colours: of each line by its name.
        splits: those whose losses were looked at in more than one epoch; all where none were.
    """

    what: str
    cells: list[tuple[str, pd.DataFrame]]
    colours: dict[str, str]
    splits: list[str]


def lines_of(data: pd.DataFrame, sort: bool = False) -> Lines:
    """Learning curves of a grid as lines: settings share a panel where there is one rate for all.

    Epochs of different numbers of images are not the same, so those keep panels of their own.
    """
    names = [name for name in data.columns if name not in _MEANS]
    cells = by_settings(data, names, sort=sort)
    looked = data.groupby("split", sort=False)["epoch"].nunique()
    splits = [str(split) for split in looked.index[(looked > 1) | (looked.max() == 1)]]
    together = data["lr"].nunique() == 1 and "train_images" not in names
    if together and 1 < len(cells) <= _MAX_TOGETHER:
        lines = [(in_words(names, cell), part) for cell, part in cells]
        rows = pd.concat([part.assign(line=line) for line, part in lines])
        return Lines("setting", [("", rows)], style.colour_of([line for line, _ in lines]), splits)
    colours = style.colour_of(sorted(data["lr"].unique(), reverse=True))
    named = {decimal(lr): colour for lr, colour in colours.items()}
    line_of = {lr: decimal(lr) for lr in colours}
    rows_of = [(in_words(names, cell), part.assign(line=part["lr"].map(line_of)))
               for cell, part in cells]  # fmt: skip
    return Lines("learning rate", rows_of, named, splits)


def _draw_means(data: pd.DataFrame, title: str) -> Figure:
    """A column per split; one line per learning rate, a band over seeds from three on."""
    lines = lines_of(data)
    cells = lines.cells[:_MAX_PANELS]
    with style.canvas(2.6 * len(cells) + 0.5, title) as figure:
        # Epochs of different numbers of images are not the same.
        shared: Literal["row", "all"] = "row" if "train_images" in data else "all"
        shape = (len(cells), len(lines.splits))
        axes = figure.subplots(*shape, squeeze=False, sharex=shared, sharey="row")
        for row, (heading, part) in zip(axes, cells, strict=True):
            for ax, split in zip(row, lines.splits, strict=True):
                shown = part[part["split"] == split]
                for line, colour in lines.colours.items():
                    style.mean_line(ax, shown[shown["line"] == line], colour, line)
                style.whole_numbers(ax)
                style.bound_losses(ax, shown["mean"])
                above = heading + "\n" if heading and ax is row[0] else ""
                ax.set_title(f"{above}{SPLITS[split]} loss")
            row[0].set_ylabel("cross entropy (nats)")
            ends = shown.sort_values("epoch").groupby("line")["mean"].last()
            named = [(y, str(line), lines.colours[str(line)]) for line, y in ends.items()]
            style.label_ends(row[-1], named)
    return figure


def _draw_trials(data: pd.DataFrame, title: str) -> Figure:
    """A line per trial, pale where it was stopped early; the best one stands out.

    Beside its validation loss stand its training and test loss.
    """
    blue, orange = style.COLOURS[:2]
    looks: dict[str, dict[str, Any]] = {
        "best": {"color": orange, "lw": 2.4, "zorder": 3},
        "stopped early": {"color": blue, "lw": 1, "alpha": 0.35, "zorder": 2},
        "ran on": {"color": blue, "lw": 1, "alpha": 0.7, "zorder": 2},
    }
    with style.canvas(3.9, title) as figure:
        ax = figure.subplots()
        kinds = np.where(data["status"] == "stopped", "stopped early", "ran on")
        for name, rows in data.groupby(np.where(data["best"], "best", kinds), sort=False):
            kind = str(name)
            parts = rows.groupby("trial_id", sort=False)[["epoch", "val_loss"]]
            lines, look = [part.to_numpy(dtype=float) for _, part in parts], looks[kind]
            hollow = "none" if kind == "stopped early" else None
            if max(map(len, lines)) < 30:
                for number, line in enumerate(lines):
                    label = None if number else kind
                    ax.plot(*line.T, marker="o", ms=3, mfc=hollow, label=label, **look)
            else:  # one artist for all of a kind: a thousand by themselves take seconds
                ax.add_collection(LineCollection(lines, label=kind, **look))
        best = data[data["best"]]
        best = best[best["trial_id"] == best["trial_id"].iloc[0]] if len(best) else best
        for split, dashes in (("train", "--"), ("test", ":")):
            label = f"best, {SPLITS[split]} loss"
            ax.plot(best["epoch"], best[f"{split}_loss"], dashes, color=orange, lw=1.6, label=label)
        ax.autoscale_view()
        style.bound_losses(ax, data["val_loss"])
        style.whole_numbers(ax)
        ax.set_ylabel("validation loss (nats)")
        ax.legend()
    return figure


def describe_curves(data: pd.DataFrame) -> Finding:
    """The losses at the end: of a grid by learning rate, of a search the best."""
    if "split" not in data:
        best = data.loc[data["best"], "val_loss"].min()
        count = data["trial_id"].nunique()
        return Finding("drawn_curves_of_trials", metric="val_loss", effect=best, n=count)
    lines = lines_of(data)
    every = pd.concat([rows for _, rows in lines.cells])
    tested = every[every["split"] == "test"]  # not after every epoch, and a sweep may end between
    last = tested[tested["epoch"] == tested["epoch"].max()]
    by = last.groupby("line").agg(mean=("mean", "mean"), gone=("diverged", "sum"))
    ends = by.reindex([line for line in lines.colours if line in by.index]).reset_index()
    return Finding(
        kind="drawn_curves_of_means",
        metric="test_loss",
        n=int(last.groupby("line").size().max()),
        facts={
            "what": lines.what,
            "epoch": int(tested["epoch"].max()),
            "ends": ends.head(12).to_dict("records"),
        },
    )


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

    Diverged trials stand at the upper edge as crosses; stopped ones are hollow. Of many settings
    those of lowest mean validation loss are shown.
    """
    names = [name for name in data.columns if name not in _FINAL]
    groups = by_settings(data, names)
    if len(groups) > _MAX_LINES:
        title = style.with_note(title, f"the {_MAX_LINES} lowest of {len(groups)} settings")
        groups = sorted(groups, key=lambda group: _lowest_mean(group[1]))[:_MAX_LINES]
        data = pd.concat([part for _, part in groups])
    colours = style.colour_of([in_words(names, cell) for cell, _ in groups])
    with style.canvas(3.2, title) as figure:
        axes = figure.subplots(1, 3, sharey=True)
        for ax, column in zip(axes, _LOSSES, strict=True):
            ends = []  # of the lines of this panel
            for cell, part in groups:
                setting = in_words(names, cell)
                colour = colours[setting]
                means = standing_in(part, column).groupby(part["lr"]).mean()
                ax.plot(means.index, means, color=colour)
                if setting and means.notna().any():
                    ends.append((float(means.dropna().iloc[-1]), setting, colour))
                for status, mark in style.MARKS.items():
                    some = part[part["status"] == status]
                    ax.plot(some["lr"], some[column], ls="", color=colour, ms=5, **mark)
                gone, above = part.loc[part["status"] == "diverged", "lr"], ax.get_xaxis_transform()
                (crosses,) = ax.plot(gone, [0.97] * len(gone), "x", color=colour, transform=above)
                crosses.set_in_layout(False)
            style.bound_losses(ax, data[column])
            split = SPLITS[column.removesuffix("_loss")]
            style.rate_axis(ax, data["lr"])
            ax.set(title=f"{split} loss", xlabel="learning rate")
        axes[0].set_ylabel("cross entropy at the last epoch (nats)")
        style.label_ends(ax, ends)
    return figure


def _lowest_mean(part: pd.DataFrame) -> float:
    """The lowest mean over seeds of a setting's validation losses; infinity without any."""
    return float(standing_in(part, "val_loss").groupby(part["lr"]).mean().fillna(math.inf).min())


def describe_loss_by_lr(data: pd.DataFrame) -> Finding:
    """Where each setting's mean validation loss is lowest, and how many trials diverged."""
    names = [name for name in data.columns if name not in _FINAL]
    lowest = []
    for cell, part in by_settings(data, names):
        means = standing_in(part, "val_loss").groupby(part["lr"]).mean().dropna()
        if len(means):
            best = {"loss": means.min(), "lr": means.idxmin()}
            lowest.append({"setting": in_words(names, cell), **best})
    lowest.sort(key=lambda best: best["loss"])
    facts = {
        "rates": data["lr"].nunique(),
        "lowest_lr": data["lr"].min(),
        "highest_lr": data["lr"].max(),
        "lowest": lowest[:_MAX_LINES],
        "gone": int((data["status"] == "diverged").sum()),
    }
    return Finding("drawn_loss_by_lr", metric="val_loss", n=len(data), facts=facts)


FIGURES: tuple[FigureSpec[Results], ...] = (
    FigureSpec("learning_curves", "curves", "Learning curves", curves_data,
               draw_curves, describe_curves,
               lambda data: f" by {lines_of(data).what}" if "split" in data else "", rank=1),
    *(
        FigureSpec(f"heat_lr_{name}", "lr", f"Loss by learning rate and {name.replace('_', ' ')}",
                   functools.partial(heat_data, axis=column_of(name)), draw_heat, describe_heat)
        for name in sorted(AXES) if name not in ("lr", "seed")
    ),
    FigureSpec("lr_sensitivity", "lr", "Sensitivity to the learning rate", sensitivity_data,
               draw_sensitivity, describe_sensitivity, rank=3),
    FigureSpec("loss_by_lr", "lr", "Loss against learning rate, each trial",
               loss_by_lr_data, draw_loss_by_lr, describe_loss_by_lr, rank=2),
)  # fmt: skip
