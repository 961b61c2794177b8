"""Loss against learning rate with intervals and the safe window; heat map of two settings."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import matplotlib.patches
import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitbench.analysis import style
from vitbench.analysis.learning_rate import sensitivity as lr_sensitivity
from vitbench.analysis.learning_rate.curves import panels
from vitbench.analysis.results import Results
from vitbench.analysis.statistics import setting

MAX_LINES = 6
_CURVE = ("lr", "loss", "low", "high", "seeds", "diverged", "initial", "safe_low", "safe_high")
_HEAT = ("lr", "setting", "value", "loss", "seeds", "best")


def sensitivity_data(results: Results, delta: float = lr_sensitivity.DELTA_NATS) -> pd.DataFrame:
    """Mean validation loss by learning rate of each model with at least five rates.

    Columns: the varying settings and _CURVE; empty where no model has enough rates.
    """
    names, _ = panels(results.trials)
    search = results.sweep["search"]
    if search["method"] != "grid" and "lr" in search["space"]:
        return pd.DataFrame(columns=[*names, *_CURVE])  # drawn by a sampler: no common rates
    groups = (
        results.trials.groupby(names, dropna=False, sort=True) if names else [((), results.trials)]
    )
    parts = []
    for cell, part in groups:
        found = lr_sensitivity.measure(part, delta)
        if found.why_not:
            continue
        curve = lr_sensitivity.curve(part)
        values: dict[str, Any] = dict(
            zip(names, cell if isinstance(cell, tuple) else (cell,), strict=True)
        )
        values |= {"safe_low": found.safe_low, "safe_high": found.safe_high}
        parts.append(curve.assign(**values)[[*names, *_CURVE]])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*names, *_CURVE])


def draw_sensitivity(data: pd.DataFrame, title: str) -> Figure:
    """A line per model through the means over seeds, its t interval, the loss before training.

    The safe window is a bar below the axis' top edge; rates at which seeds diverged carry a cross.
    """
    names = [name for name in data.columns if name not in _CURVE]
    groups = list(data.groupby(names, dropna=False, sort=True)) if names else [((), data)]
    groups = groups[:MAX_LINES]
    figure = style.new_figure(8.0, 4.6)
    with matplotlib.rc_context(style.RC):
        ax = figure.subplots()
        for number, (cell, part) in enumerate(groups):
            values = cell if isinstance(cell, tuple) else (cell,)
            label = ", ".join(setting(n, v) for n, v in zip(names, values, strict=False))
            _sensitivity_line(ax, part, number, label or "mean over seeds")
        ax.set_xscale("log")
        ax.set_yscale("log")
        low, high = ax.get_ylim()
        ticks = matplotlib.ticker.LogLocator(subs=(1, 2, 3, 5, 7) if high < 30 * low else (1, 3))
        ax.yaxis.set_major_locator(ticks)
        ax.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        ax.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        ax.axhline(
            float(data["initial"].mean()), color="0.4", lw=1, ls=":", label="before training"
        )
        ax.set_xlabel("learning rate")
        ax.set_ylabel("validation loss at the end (nats)")
        ax.legend(fontsize=9)
        figure.suptitle(style.wrapped(title, 88))
    return figure


def _sensitivity_line(ax: Axes, part: pd.DataFrame, number: int, label: str) -> None:
    colour = style.COLOURS[number]
    ax.plot(part["lr"], part["loss"], color=colour, marker="o", ms=4, label=label)
    known = part.dropna(subset=["low", "high"])
    floor = 0.5 * float(part["loss"].min())  # a log axis has no place for a bound below zero
    ax.fill_between(
        known["lr"],
        np.maximum(known["low"].to_numpy(dtype=float), floor),
        known["high"],
        color=colour,
        alpha=0.15,
        lw=0,
        label="95 % t interval over seeds" if number == 0 and len(known) else None,
    )
    gone = part[part["diverged"] > 0]
    ax.plot(
        gone["lr"],
        gone["loss"],
        ls="",
        marker="x",
        ms=10,
        color=colour,
        label="some seeds diverged" if len(gone) and number == 0 else None,
    )
    safe = part.iloc[0]
    if math.isfinite(safe["safe_low"]):
        ax.plot(
            [safe["safe_low"], safe["safe_high"]],
            [0.02 + 0.025 * number] * 2,
            transform=ax.get_xaxis_transform(),
            color=colour,
            lw=5,
            alpha=0.6,
            solid_capstyle="butt",
            label="safe window" if number == 0 else None,
        )


def heat_settings(results: Results) -> list[str]:
    """Settings beside the learning rate that a grid varies over two to eight values."""
    trials = results.trials
    if results.sweep["search"]["method"] != "grid":
        return []
    names, _ = panels(trials)
    rates = trials["lr"].nunique()
    return [n for n in names if 2 <= rates <= 12 and 2 <= trials[n].nunique() <= 8]


def heat_data(results: Results, axis: str) -> pd.DataFrame:
    """Mean capped loss by learning rate and one setting, averaged over all other settings.

    Columns: `lr`, `setting` (its name), `value`, `loss`, `seeds` (runs averaged), `best` (whether
    it is the best rate of its value).
    """
    frame = results.trials.assign(loss=lr_sensitivity.capped_loss(results.trials))
    grouped = frame.dropna(subset=["loss"]).groupby([axis, "lr"])["loss"]
    data = grouped.agg(loss="mean", seeds="count").reset_index()
    data["best"] = data["loss"] == data.groupby(axis)["loss"].transform("min")
    data = data.rename(columns={axis: "value"}).assign(setting=axis)
    return data[list(_HEAT)].sort_values(["value", "lr"]).reset_index(drop=True)


def draw_heat(data: pd.DataFrame, title: str) -> Figure:
    """Cells with their loss in figures; the best rate of each row is framed."""
    table = data.pivot_table(index="value", columns="lr", values="loss")
    best = data[data["best"]].set_index("value")["lr"]
    rows, columns = table.shape
    figure = style.new_figure(max(5.5, 1.6 + 0.85 * columns), 1.7 + 0.55 * rows)
    with matplotlib.rc_context({**style.RC, "axes.grid": False}):
        ax = figure.subplots()
        values = np.log(table.to_numpy(dtype=float))
        image = ax.imshow(values, cmap="cividis_r", aspect="auto")
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for i, j in np.argwhere(np.isfinite(values)):
            ink = "white" if values[i, j] > middle else "black"
            ax.text(j, i, f"{math.exp(values[i, j]):.3g}", ha="center", va="center", color=ink)
        for i, value in enumerate(table.index):
            j = list(table.columns).index(best[value])
            frame = matplotlib.patches.Rectangle(
                (j - 0.46, i - 0.44), 0.92, 0.88, fill=False, ec="#D55E00", lw=2.5
            )
            ax.add_patch(frame)
        ax.set_xticks(range(columns), [f"{lr:g}" for lr in table.columns])
        ax.set_yticks(range(rows), [str(v) for v in table.index])
        ax.set_xlabel("learning rate (framed: best of its row)")
        ax.set_ylabel(str(data["setting"].iloc[0]).replace("_", " "))
        bar = figure.colorbar(image, ax=ax)
        bar.ax.yaxis.set_major_formatter(
            matplotlib.ticker.FuncFormatter(lambda v, _: f"{math.exp(v):.2g}")
        )
        bar.set_label("validation loss (nats, log colours)")
        figure.suptitle(style.wrapped(title, 76))
    return figure
