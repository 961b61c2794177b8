"""Figures of a search: best so far, Pareto front, slices, importance, best of k, rungs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitbench.analysis import style
from vitbench.analysis.figure_spec import FigureSpec, several
from vitbench.analysis.findings.arms import in_words
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.render import spelled_out
from vitbench.analysis.results import Results, computed_once
from vitbench.analysis.search import numbers as search
from vitbench.analysis.search import overview
from vitbench.records import tables

_MAX_SLICES = 9
_LOSS = "best validation loss (nats)"


def of_search(
    data: Callable[[Results], pd.DataFrame | None],
) -> Callable[[Results], pd.DataFrame | None]:
    """The numbers of a figure that shows the course of a search: None for a grid, or of one row."""

    @functools.wraps(data)
    def only(results: Results) -> pd.DataFrame | None:
        rows = None if results.is_grid else data(results)
        return None if rows is None else several(rows)

    return only


def draw_best_so_far(data: pd.DataFrame, title: str) -> Figure:
    """Suggestions as dots (hollow: stopped early), the lowest loss so far as a staircase."""
    with style.canvas(3.8, title) as figure:
        ax = figure.subplots()
        _dots(ax, data, "epochs_spent")
        spent, best = data["epochs_spent"], data["best"]
        ax.step(spent, best, where="post", color=style.COLOURS[1], label="best")
        style.bound_losses(ax, data["loss"])
        ax.set_xlabel("epochs spent on all suggestions, in the order in which they were made")
        ax.set_ylabel(_LOSS)
        ax.legend()
    return figure


def describe_best_so_far(data: pd.DataFrame) -> Finding:
    """The lowest loss, and when it was reached."""
    best = data.iloc[int(data["best"].argmin())]  # the first row that has it
    facts = {"spent": best["epochs_spent"], "epochs": data["epochs_spent"].max()}
    return Finding("drawn_best_so_far", effect=best["best"], n=len(data), facts=facts)


def _dots(ax: Axes, data: pd.DataFrame, x: str) -> None:
    """One marker per status; a legend entry for each."""
    for status, part in data.groupby("status"):
        mark: dict[str, Any] = style.MARKS.get(str(status), {"marker": "."})
        ax.plot(part[x], part["loss"], ls="", ms=5, color=style.COLOURS[0], label=status, **mark)


@of_search
def slices_data(results: Results) -> pd.DataFrame:
    """Suggestions with the settings that vary: `loss`, `status` and a column per setting."""
    suggested = search.suggestions(results)
    return suggested[[*search.varying(results, suggested)[:_MAX_SLICES], "loss", "status"]]


def draw_slices(data: pd.DataFrame, title: str) -> Figure:
    """Loss against each setting alone, the others as they came."""
    names = list(data.columns.drop(["loss", "status"]))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with style.canvas(2.4 * rows + 0.8, title) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for ax, name in zip(grid.flat, names, strict=False):
            values = data[name]
            if not pd.api.types.is_numeric_dtype(values):
                values = values.fillna("none")  # label: null is a choice like others
            _dots(ax, data.assign(**{name: values}), name)
            if pd.api.types.is_float_dtype(values) and overview.is_wide(values):
                ax.set_xscale("log")
            elif pd.api.types.is_integer_dtype(values):
                ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set_xlabel(spelled_out(name).replace("_", " "))
        style.bound_losses(grid[0][0], data["loss"])
        for ax in grid.flat[len(names) :]:
            ax.set_axis_off()
        for ax in grid[:, 0]:
            ax.set_ylabel(_LOSS)
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def describe_slices(data: pd.DataFrame) -> Finding:
    """The settings of the lowest loss."""
    best = data.sort_values("loss").iloc[0]
    names = data.columns.drop(["loss", "status"])
    named = in_words(names, best[names])
    return Finding("drawn_slices", arms=(named,), effect=best["loss"], n=len(data))


@computed_once
def importance_data(results: Results) -> pd.DataFrame | None:
    """Omega squared on a grid with at least two settings and seeds, fANOVA on a search, else None.

    Columns: `setting`, `share`, `low`, `high`, `p`, `p_adjusted`, `r2` (all five NaN on a grid),
    `trials`, `method` (omega2 or forest).
    """
    if results.is_grid:
        names = [n for n in search.settings(results) if n != "seed"]
        shares = search.grid_anova(results.trials, names).rename(columns={"effect": "setting"})
        if len(shares) < 4:  # one setting and the seeds: nothing to compare
            return None
        unknown = dict.fromkeys(("low", "high", "p", "p_adjusted", "r2"), np.nan)
        return shares.assign(**unknown, trials=len(results.trials), method="omega2")
    ends = search.share_intervals(search.suggestions(results), search.settings(results))
    return several(search.importance_of(results).merge(ends, on="setting").assign(method="forest"))


def draw_importance(data: pd.DataFrame, title: str) -> Figure:
    """Bars of shares of the variance, with the bootstrap interval of a forest's."""
    with style.canvas(1.3 + 0.32 * len(data), title, grid="x") as figure:
        ax = figure.subplots()
        order = data.iloc[::-1].reset_index(drop=True)
        labels = order["setting"].map(spelled_out).str.replace("_", " ")
        ax.barh(labels, order["share"], color=style.COLOURS[4], height=0.62)
        how = "omega squared, full grid"
        if data["method"].iloc[0] == "forest":
            ax.hlines(order.index, order["low"], order["high"], color="0.2", lw=2)
            how = f"fANOVA; lines: 5 to 95 % of bootstrap\n{_out_of_bag(data)}"
            for place, row in order.iterrows():
                ax.annotate(
                    f"p = {row['p_adjusted']:.2f}", (max(row["share"], row["high"]), place),
                    (4, 0), va="center", textcoords="offset points", fontsize=8,
                )  # fmt: skip
            ax.margins(x=0.12)
        ax.set_xlabel(f"share of the variance of the validation loss ({how})")
        ax.set_xlim(left=0)
    return figure


def _out_of_bag(data: pd.DataFrame) -> str:
    return f"p adjusted, from permuted losses; out-of-bag R² of the forest {data['r2'].iloc[0]:.2f}"


def describe_importance(data: pd.DataFrame) -> Finding:
    """The largest shares; of a forest with the adjusted p of each."""
    shares = data.head(8).to_dict("records")
    return Finding("drawn_importance", facts={"shares": shares, "r2": data["r2"].iloc[0]})


@of_search
def best_of_k_data(results: Results) -> pd.DataFrame:
    """The expected best of k suggestions that were not stopped early."""
    made = search.suggestions(results)
    return search.best_of_k(made.loc[made["status"] != "stopped", "loss"])


def draw_best_of_k(data: pd.DataFrame, title: str) -> Figure:
    """How the expected best falls with the number of suggestions."""
    with style.canvas(3.4, title) as figure:
        ax = figure.subplots()
        ax.plot(data["k"], data["expected"], color=style.COLOURS[0], marker="o", ms=3)
        style.bound_losses(ax, data["expected"])
        style.whole_numbers(ax, "suggestions k, drawn from those that were not stopped early")
        ax.set_ylabel("expected lowest loss (nats)")
    return figure


def describe_best_of_k(data: pd.DataFrame) -> Finding:
    """The expected best of one suggestion and of all."""
    one, every = data.iloc[0], data.iloc[-1]
    facts = {"alone": one["expected"]}
    return Finding("drawn_best_of_k", effect=every["expected"], n=int(every["k"]), facts=facts)


@of_search
def rung_data(results: Results) -> pd.DataFrame | None:
    """Loss at each rung and at the end of every trial that finished, with tau of the rung.

    None where trials were not stopped by ASHA.
    """
    if results.sweep["search"]["scheduler"] != "asha":
        return None
    table = search.rung_correlation(results).dropna(subset=["tau"])
    final = results.trials.loc[results.trials["status"] == "finished", ["trial_id", "val_loss"]]
    rows = results.epochs.rename(columns={"val_loss": "at_rung"}).merge(table, on="epoch")
    rows = rows.merge(final.rename(columns={"val_loss": "final"}), on="trial_id")
    return rows[["epoch", "tau", "trials", "trial_id", "at_rung", "final"]].dropna()


def draw_rungs(data: pd.DataFrame, title: str) -> Figure:
    """A panel per rung: loss there against loss at the end, with Kendall's tau."""
    rungs = list(data.groupby("epoch"))[:4]
    with style.canvas(3.0, title) as figure:
        axes = figure.subplots(1, len(rungs), squeeze=False, sharey=True)[0]
        for ax, (epoch, part) in zip(axes, rungs, strict=True):
            ax.plot(part["at_rung"], part["final"], "o", ms=5, color=style.COLOURS[0])
            style.bound_losses(ax, part["at_rung"], "x")
            ax.set_xlabel(f"at epoch {epoch}")
            tau, n = part["tau"].iloc[0], part["trials"].iloc[0]
            ax.set_title(f"Kendall's tau {tau:.2f}\nn = {n}")
        style.bound_losses(axes[0], data["final"])
        axes[0].set_ylabel("validation loss\nat the last epoch (nats)")
    return figure


def describe_rungs(data: pd.DataFrame) -> Finding:
    """Kendall's tau at each rung."""
    return Finding("drawn_rungs", facts={"taus": data.groupby("epoch")["tau"].first().to_dict()})


_OBJECTIVES = {
    "val_loss": "validation loss (nats)",
    "val_accuracy": "validation accuracy",
    "parameters": "parameters",
    "train_flops": "training FLOPs of one model",
    "lr_sensitivity": "learning-rate sensitivity (nats)",
}


def pareto_data(results: Results) -> pd.DataFrame | None:
    """Trained suggestions with their objectives and `pareto`; None where there is one objective."""
    path = results.folder / "suggestions.parquet"
    objectives = results.sweep["search"]["objectives"]
    if len(objectives) < 2 or not path.is_file():
        return None
    rows = tables.read(path)
    rows = rows[(rows["state"] == "COMPLETE") & rows["reason"].isna()]
    return rows[["number", "stack_id", *objectives, "pareto"]].reset_index(drop=True)


def draw_pareto(data: pd.DataFrame, title: str) -> Figure:
    """The first objective against each other one; suggestions on the front are filled."""
    first, *others = [name for name in _OBJECTIVES if name in data.columns]
    beaten = {"color": style.COLOURS[0], "mfc": "none", "label": "beaten by another"}
    best = {"color": style.COLOURS[1], "label": "on the front"}
    with style.canvas(3.8, title) as figure:
        axes = figure.subplots(1, len(others), squeeze=False, sharey=True)[0]
        for ax, name in zip(axes, others, strict=True):
            for on_front, part in data.groupby("pareto"):
                ax.plot(part[name], part[first], "o", **(best if on_front else beaten))
            if name in ("parameters", "train_flops") and data[name].max() > 5 * data[name].min():
                ax.set_xscale("log")
            ax.set_xlabel(_OBJECTIVES[name])
        axes[0].set_ylabel(_OBJECTIVES[first])
        axes[-1].legend()
    return figure


def describe_pareto(data: pd.DataFrame) -> Finding:
    """How many suggestions are on the front."""
    names = data.columns.drop(["number", "stack_id", "pareto"]).str.replace("_", " ")
    facts = {"front": int(data["pareto"].sum()), "objectives": list(names)}
    return Finding("drawn_pareto", n=len(data), facts=facts)


FIGURES: tuple[FigureSpec[Results], ...] = (
    FigureSpec("best_so_far", "search", "Best so far against epochs spent",
               of_search(lambda results: search.best_so_far(search.suggestions(results))),
               draw_best_so_far, describe_best_so_far, rank=4),
    FigureSpec("pareto_front", "search", "Pareto front of the search", pareto_data, draw_pareto,
               describe_pareto, subtitle_end=lambda data: f", {len(data)} suggestions", rank=5),
    FigureSpec("importance", "search", "Importance of the settings", importance_data,
               draw_importance, describe_importance),
    FigureSpec("search_slices", "search", "Loss against each setting of the search", slices_data,
               draw_slices, describe_slices),
    FigureSpec("interactions", "search", "Loss by pairs of settings", overview.interactions_data,
               overview.draw_interactions, overview.describe_interactions),
    FigureSpec("parallel_coordinates", "search", "Settings of every trial",
               of_search(overview.parallel_data), overview.draw_parallel,
               overview.describe_parallel),
    FigureSpec("rung_correlation", "search", "Early losses against final losses", rung_data,
               draw_rungs, describe_rungs),
    FigureSpec("best_of_k", "search", "Expected best of k trials", best_of_k_data, draw_best_of_k,
               describe_best_of_k),
)  # fmt: skip
