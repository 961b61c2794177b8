"""How far attention spreads at each learning rate: effective patches by rate, a dot per seed."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from vitbench.analysis import style
from vitbench.analysis.attention.findings import WIDTH, recorded_spread
from vitbench.analysis.findings.arms import labels, shape_names
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.results import Results

_MAX_GROUPS = 6


def data(results: Results) -> pd.DataFrame | None:
    """A row per model that was looked at: its spread, its learning rate and seed.

    Columns: `trial_id`, `lr`, `seed`, `group` (the other settings in words), `effective_patches`,
    `patches` (of the image). None but for a grid with maps at two learning rates or more.
    """
    spread = recorded_spread(results)
    if spread.empty or not results.is_grid:
        return None
    trials = results.trials.assign(group=labels(results.trials, shape_names(results)))
    rows = trials[["trial_id", "lr", "seed", "group"]].merge(spread[["trial_id", WIDTH, "patches"]])
    rows = rows.sort_values(["group", "lr", "seed"], ignore_index=True)
    return rows if rows["lr"].nunique() > 1 else None


def draw(data: pd.DataFrame, title: str) -> Figure:
    """A line per group through its means over seeds; above, the spread of uniform attention."""
    groups = list(data["group"].unique())[:_MAX_GROUPS]
    with style.canvas(3.8, title) as figure:
        ax = figure.subplots()
        colours, ends = style.colour_of(groups), []
        for group, colour in colours.items():
            part = data[data["group"] == group]
            means = part.groupby("lr")[WIDTH].mean()
            ax.plot(part["lr"], part[WIDTH], "o", color=colour, ms=4, alpha=0.5)
            ax.plot(means.index, means, color=colour, marker="_", ms=14, mew=2)
            ends.append((float(means.iloc[-1]), group if len(groups) > 1 else "mean", colour))
        patches = int(data["patches"].max())
        ax.axhline(patches, color="0.4", lw=1, ls=":")
        ax.set(xscale="log", xlabel="learning rate (dots: a seed each)", ylim=(0, 1.06 * patches))
        ax.set_ylabel(f"effective patches of {patches}, last layer")
        style.label_ends(ax, [*ends, (float(patches), "uniform", "0.4")])
    return figure


def describe(data: pd.DataFrame) -> Finding:
    """Mean spread at each rate, of each group."""
    return _finding("drawn_attention_by_lr", data)


def findings(results: Results) -> list[Finding]:
    """Where the spread was recorded at several learning rates: its means, without a claim."""
    rows = data(results)
    return [] if rows is None else [_finding("attention_by_lr", rows)]


def _finding(kind: str, data: pd.DataFrame) -> Finding:
    means = data.groupby(["group", "lr"])[WIDTH].mean()
    groups = list(data["group"].unique())
    facts = {
        "patches": int(data["patches"].max()),
        "means": {
            "" if group == "all" else group: means[group].to_dict()
            for group in groups[:_MAX_GROUPS]
        },
        "more": max(0, len(groups) - _MAX_GROUPS),
        "models": len(data),
    }
    return Finding(kind, metric=WIDTH, n=int(data["seed"].nunique()), facts=facts)
