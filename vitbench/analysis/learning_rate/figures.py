"""Figures on the learning rate: curves, sensitivity with the safe window, heat maps."""

from __future__ import annotations

import functools
import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullLocator

from vitbench.analysis import style
from vitbench.analysis.figure_spec import FigureSpec
from vitbench.analysis.findings.arms import (
    by_settings,
    column_of,
    in_words,
    setting,
    shape_names,
    standing_in,
)
from vitbench.analysis.learning_rate import curves
from vitbench.analysis.learning_rate import sensitivity as lr_sensitivity
from vitbench.analysis.results import Results
from vitbench.config import AXES

MAX_LINES = 6
_CURVE = ("lr", "loss", "low", "high", "seeds", "diverged", "initial", "safe_low", "safe_high")
_HEAT = ("lr", "setting", "value", "loss", "seeds", "best")


def sensitivity_data(results: Results) -> pd.DataFrame | None:
    """Mean validation loss by learning rate of each model with at least five rates.

    Columns: the varying settings and _CURVE; None where no model has enough rates.
    """
    if not results.is_grid and "lr" in results.sweep["search"]["space"]:
        return None  # drawn by a sampler: no common rates
    names = shape_names(results)
    parts = []
    for cell, part in by_settings(results.trials, names, sort=True):
        model = lr_sensitivity.measure(part)
        if not model.why_not:
            curve = lr_sensitivity.curve(part).assign(**dict(zip(names, cell, strict=True)))
            curve = curve.assign(safe_low=model.safe_low, safe_high=model.safe_high)
            parts.append(curve[[*names, *_CURVE]])
    return pd.concat(parts, ignore_index=True) if parts else None


def draw_sensitivity(data: pd.DataFrame, title: str) -> Figure:
    """A line per model through the means over seeds, its t interval, the loss before training.

    The safe window is a bar below the axis' top edge; rates at which seeds diverged carry a cross.
    """
    names = [name for name in data.columns if name not in _CURVE]
    with style.canvas(8.0, 4.6, title, wrap=88) as figure:
        ax = figure.subplots()
        for number, (cell, part) in enumerate(by_settings(data, names, sort=True)[:MAX_LINES]):
            _sensitivity_line(ax, part, number, in_words(names, cell) or "mean over seeds")
        ax.set(xscale="log", yscale="log")
        low, high = ax.get_ylim()
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if high < 30 * low else (1, 3)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter("{x:g}")
        ax.axhline(data["initial"].mean(), color="0.4", lw=1, ls=":", label="before training")
        ax.set(xlabel="learning rate", ylabel="validation loss at the end (nats)")
        ax.legend(fontsize=9)
    return figure


def _sensitivity_line(ax: Axes, part: pd.DataFrame, number: int, label: str) -> None:
    colour = style.COLOURS[number]
    ax.plot(part["lr"], part["loss"], color=colour, marker="o", ms=4, label=label)
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
            transform=ax.get_xaxis_transform(), label="safe window" if number == 0 else "",
        )  # fmt: skip


def describe_sensitivity(data: pd.DataFrame) -> str:
    """The lowest mean loss and the safe window of that model."""
    best = data.sort_values("loss").iloc[0]
    text = (
        f"Mean validation loss from {data['lr'].min():g} to {data['lr'].max():g}, lowest "
        f"({best['loss']:.3g}) at {best['lr']:g}"
    )
    if math.isfinite(best["safe_low"]):
        text += f"; safe window from {best['safe_low']:.2g} to {best['safe_high']:.2g}"
    return text + "."


def heat_data(results: Results, axis: str) -> pd.DataFrame | None:
    """Mean capped loss by learning rate and one setting, averaged over all other settings.

    Columns: `lr`, `setting` (its name), `value`, `loss`, `seeds` (runs averaged), `best` (whether
    it is the best rate of its value). None but for a grid over two to twelve learning rates and
    two to eight values of the setting.
    """
    trials = results.trials
    drawn = results.is_grid and axis in shape_names(results)
    if not (drawn and 2 <= trials["lr"].nunique() <= 12 and 2 <= trials[axis].nunique() <= 8):
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
    width_in, height_in = max(5.5, 1.6 + 0.85 * columns), 1.7 + 0.55 * rows
    with style.canvas(width_in, height_in, title, wrap=76, grid=None) as figure:
        ax = figure.subplots()
        values = np.log(table.to_numpy(dtype=float))
        image = ax.imshow(values, cmap="cividis_r", aspect="auto")
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for i, j in np.argwhere(np.isfinite(values)):
            ink = "white" if values[i, j] > middle else "black"
            ax.text(j, i, f"{math.exp(values[i, j]):.3g}", ha="center", va="center", color=ink)
        for i, j in np.argwhere(table.eq(table.min(axis=1), axis="index").to_numpy()):
            corner = (j - 0.46, i - 0.44)
            ax.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, ec=style.COLOURS[1], lw=2.5))
        ax.set_xticks(range(columns), [f"{lr:g}" for lr in table.columns])
        ax.set_yticks(range(rows), table.index.astype(str))
        ax.set_xlabel("learning rate (framed: lowest loss of its row)")
        ax.set_ylabel(data["setting"].iloc[0].replace("_", " "))
        bar = figure.colorbar(image, ax=ax)
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{math.exp(value):.2g}")
        bar.set_label("validation loss (nats, log colours)")
    return figure


def describe_heat(data: pd.DataFrame) -> str:
    """The best learning rate of each value of the setting."""
    name = str(data["setting"].iloc[0])
    cells = ", ".join(
        f"{row['lr']:g} at {setting(name, row['value'])} (loss {row['loss']:.3g})"
        for row in data[data["best"]].to_dict("records")
    )
    return f"Learning rate of lowest mean validation loss: {cells}."


FIGURES: tuple[FigureSpec[Results], ...] = (
    FigureSpec("learning_curves", "curves", "Learning curves", curves.curves_data,
               curves.draw_curves, curves.describe_curves,
               lambda data: " by learning rate" if "split" in data else ""),
    *(
        FigureSpec(f"heat_lr_{name}", "lr", f"Loss by learning rate and {name.replace('_', ' ')}",
                   functools.partial(heat_data, axis=column_of(name)), draw_heat, describe_heat)
        for name in sorted(AXES) if name not in ("lr", "seed")
    ),
    FigureSpec("lr_sensitivity", "lr", "Sensitivity to the learning rate", sensitivity_data,
               draw_sensitivity, describe_sensitivity),
    FigureSpec("loss_by_lr", "lr", "Loss against learning rate, each trial",
               curves.loss_by_lr_data, curves.draw_loss_by_lr, curves.describe_loss_by_lr),
)  # fmt: skip
