"""How far attention spreads at each learning rate: effective patches by rate, a dot per seed."""

from __future__ import annotations

import pandas as pd

from vitbench.analysis.attention.findings import WIDTH, recorded_spread
from vitbench.analysis.findings.arms import labels, shape_names
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.results import Results

MAX_GROUPS = 6


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
            "" if group == "all" else group: means[group].to_dict() for group in groups[:MAX_GROUPS]
        },
        "more": max(0, len(groups) - MAX_GROUPS),
        "models": len(data),
    }
    return Finding(kind, metric=WIDTH, n=int(data["seed"].nunique()), facts=facts)
