"""Figures of a search: best so far, slices, importance, best of k, early against final losses."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitbench.analysis import style
from vitbench.analysis.results import Results
from vitbench.analysis.search import numbers as search

_MAX_SLICES = 9
_LOSS = "best validation loss (nats)"


def curves_data(results: Results) -> pd.DataFrame:
    """Of every trial: `trial_id`, `epoch`, `val_loss`, `status`, `best` (the best of all)."""
    trials = results.trials[["trial_id", "status", "best_val_loss"]]
    rows = results.epochs[["trial_id", "epoch", "val_loss"]].merge(trials, on="trial_id")
    rows["best"] = rows["best_val_loss"] == trials["best_val_loss"].min()
    return rows.drop(columns="best_val_loss")


def draw_curves(data: pd.DataFrame, title: str) -> Figure:
    """A line per trial, pale where it was stopped early; the best one stands out."""
    figure = style.new_figure(7.5, 4.0)
    with matplotlib.rc_context(style.RC):
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
        figure.suptitle(style.wrapped(title, 84))
    return figure


def best_so_far_data(results: Results) -> pd.DataFrame:
    """Of search.best_so_far."""
    return search.best_so_far(search.suggestions(results))


def draw_best_so_far(data: pd.DataFrame, title: str) -> Figure:
    """Suggestions as dots (hollow: stopped early), the lowest loss so far as a staircase."""
    figure = style.new_figure(7.5, 3.8)
    with matplotlib.rc_context(style.RC):
        ax = figure.subplots()
        _dots(ax, data, "epochs_spent")
        ax.step(
            data["epochs_spent"], data["best"], where="post", color=style.COLOURS[1], label="best"
        )
        ax.set_xlabel("epochs spent on all suggestions, in the order in which they were made")
        ax.set_ylabel(_LOSS)
        ax.legend(fontsize=9)
        figure.suptitle(style.wrapped(title, 84))
    return figure


def _dots(ax: Axes, data: pd.DataFrame, x: str) -> None:
    """One marker per status; a legend entry for each."""
    for status, part in data.groupby("status"):
        mark: dict[str, Any] = style.MARKS.get(str(status), {"marker": "."})
        ax.plot(part[x], part["loss"], ls="", ms=5, color=style.COLOURS[0], label=status, **mark)


def slices_data(results: Results) -> pd.DataFrame:
    """Suggestions with the settings that vary: `loss`, `status` and a column per setting."""
    found = search.suggestions(results)
    varying = [n for n in search.settings(results) if found[n].nunique(dropna=False) > 1]
    return found[[*varying[:_MAX_SLICES], "loss", "status"]]


def draw_slices(data: pd.DataFrame, title: str) -> Figure:
    """Loss against each setting alone, the others as they came."""
    names = [name for name in data.columns if name not in ("loss", "status")]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = style.new_figure(3.1 * columns + 0.6, 2.7 * rows + 0.7)
    with matplotlib.rc_context(style.RC):
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for number, ax in enumerate(grid.flat):
            if number >= len(names):
                ax.set_axis_off()
                continue
            name = names[number]
            values = data[name]
            if not pd.api.types.is_numeric_dtype(values):
                values = values.fillna("none")  # label: null is a choice like others
            _dots(ax, data.assign(**{name: values}), name)
            if pd.api.types.is_float_dtype(values) and values.min() > 0:
                if values.max() >= 30 * values.min():
                    ax.set_xscale("log")
            elif pd.api.types.is_integer_dtype(values):
                ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set_xlabel(name.replace("_", " "))
        for row in grid:
            row[0].set_ylabel(_LOSS)
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        figure.suptitle(style.wrapped(title, 34 * columns))
    return figure


def importance_data(results: Results) -> pd.DataFrame:
    """Exact shares on a grid with at least two settings, fANOVA on a search, else empty.

    Columns: `setting`, `share`, `low`, `high` (NaN where exact), `trials`, `method`.
    """
    if results.sweep["search"]["method"] == "grid":
        names = [n for n in search.settings(results) if n != "seed"]
        found = search.grid_anova(results.trials, names)
        if len(found) < 4:  # one setting and the seeds: nothing to compare
            found = found.iloc[:0]
        found = found.rename(columns={"effect": "setting"})
        return found.assign(low=np.nan, high=np.nan, trials=len(results.trials), method="exact")
    found = search.importance(search.suggestions(results), search.settings(results))
    return found.assign(method="forest")


def draw_importance(data: pd.DataFrame, title: str) -> Figure:
    """Bars of shares of the variance, with the bootstrap interval of a forest's."""
    figure = style.new_figure(7.5, 1.3 + 0.36 * len(data))
    with matplotlib.rc_context({**style.RC, "axes.grid.axis": "x"}):
        ax = figure.subplots()
        order = data.iloc[::-1]
        labels = [str(name).replace("_", " ") for name in order["setting"]]
        ax.barh(labels, order["share"], color=style.COLOURS[4], height=0.62)
        known = order["low"].notna().to_numpy()
        if known.any():
            ax.hlines(
                np.flatnonzero(known), order["low"][known], order["high"][known], color="0.2", lw=2
            )
        exact = str(data["method"].iloc[0]) == "exact"
        how = "exact, full grid" if exact else "fANOVA; lines: 5 to 95 % of bootstrap samples"
        ax.set_xlabel(f"share of the variance of the validation loss ({how})")
        ax.set_xlim(left=0)
        figure.suptitle(style.wrapped(title, 84))
    return figure


def best_of_k_data(results: Results) -> pd.DataFrame:
    """Of search.best_of_k, over suggestions that were not stopped early."""
    found = search.suggestions(results)
    whole = found[found["status"] != "stopped"]
    return search.best_of_k(whole["loss"])


def draw_best_of_k(data: pd.DataFrame, title: str) -> Figure:
    """How the expected best falls with the number of suggestions."""
    figure = style.new_figure(6.5, 3.4)
    with matplotlib.rc_context(style.RC):
        ax = figure.subplots()
        ax.plot(data["k"], data["expected"], color=style.COLOURS[0], marker="o", ms=3)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("suggestions k, drawn from those that were not stopped early")
        ax.set_ylabel("expected lowest loss (nats)")
        figure.suptitle(style.wrapped(title, 74))
    return figure


def rung_data(results: Results) -> pd.DataFrame:
    """Loss at each rung and at the end of every trial that finished, with tau of the rung."""
    table = search.rung_correlation(results).dropna(subset=["tau"])
    finished = results.trials[results.trials["status"] == "finished"]
    final = finished[["trial_id", "val_loss"]].rename(columns={"val_loss": "final"})
    rows = results.epochs.merge(table, on="epoch").merge(final, on="trial_id")
    rows = rows.rename(columns={"val_loss": "at_rung"})
    return rows[["epoch", "tau", "trials", "trial_id", "at_rung", "final"]].dropna()


def draw_rungs(data: pd.DataFrame, title: str) -> Figure:
    """A panel per rung: loss there against loss at the end, with Kendall's tau."""
    epochs = sorted(data["epoch"].unique())[:4]
    figure = style.new_figure(max(6.5, 3.0 * len(epochs) + 0.6), 3.3)
    with matplotlib.rc_context(style.RC):
        axes = figure.subplots(1, len(epochs), squeeze=False, sharey=True)[0]
        for ax, epoch in zip(axes, epochs, strict=True):
            part = data[data["epoch"] == epoch]
            ax.plot(part["at_rung"], part["final"], ls="", marker="o", ms=5, color=style.COLOURS[0])
            ax.set_xlabel(f"validation loss at epoch {epoch}")
            tau, count = part["tau"].iloc[0], int(part["trials"].iloc[0])
            ax.set_title(f"Kendall's tau {tau:.2f}, n = {count}")
        axes[0].set_ylabel("at the last epoch (nats)")
        figure.suptitle(style.wrapped(title, max(74, 36 * len(epochs))))
    return figure
