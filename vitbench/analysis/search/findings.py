"""Findings on a search: its lowest loss, whether early losses foretold final ones, what matters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from vitbench.analysis.findings.arms import in_words
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import LEVEL
from vitbench.analysis.results import Results
from vitbench.analysis.search import numbers as search

FAMILY = "importance"
METRIC = "best_val_loss"
EDGE = 0.05  # of a range, in the logarithm where it was drawn so


def findings(results: Results) -> list[Finding]:
    """Of a search; a grid has none, its settings are compared with each other."""
    if results.is_grid or search.suggestions(results).empty:
        return []
    curve = search.best_so_far(search.suggestions(results))
    at, count = int(curve["loss"].argmin()), len(curve)
    made = search.suggestions(results)
    names = search.varying(results, made)
    facts = {
        "suggestion": at + 1,
        "named": in_words(names, made.iloc[at][names]),
        "spent": int(curve["epochs_spent"].iloc[at]),
        "epochs": int(curve["epochs_spent"].iloc[-1]),
        "luck_sd": -search.lowest_of(count),  # what luck alone makes of the lowest of so many
    }
    lowest = float(curve["loss"].iloc[at])
    told = [Finding("search_lowest", metric=METRIC, effect=lowest, n=count, facts=facts)]
    told += _at_edge(results.sweep["search"]["space"], made.iloc[at])
    if results.sweep["search"]["scheduler"] == "asha":
        rungs = search.rung_correlation(results).dropna(subset=["tau"])
        kind = "search_rungs" if len(rungs) else "search_rungs_unknown"
        most = int(rungs["trials"].max()) if len(rungs) else 0
        rows = {"rungs": rungs.to_dict("records")}
        told.append(Finding(kind, metric="val_loss", n=most, facts=rows))
    return told + important(search.importance_of(results))


def _at_edge(space: Mapping[str, Any], best: pd.Series) -> list[Finding]:
    """Ranges of the space whose best value lies at an end of them, which may be too narrow."""
    rows = []
    for name, values in space.items():
        if isinstance(values, Mapping) and name in best and values["high"] > values["low"]:
            low, high, value = (float(x) for x in (values["low"], values["high"], best[name]))
            if values.get("log"):
                low, high, value = map(math.log, (low, high, value))
            share = (value - low) / (high - low)
            if not EDGE < share < 1 - EDGE:
                end = "lowest" if share <= EDGE else "highest"
                rows.append({"name": name, "value": float(best[name]), "end": end})
    edge = Finding("search_at_edge", metric=METRIC, n=len(rows), facts={"rows": rows})
    return [edge] if rows else []


def important(table: pd.DataFrame) -> list[Finding]:
    """Settings whose share noise does not explain; then the others, without a claim.

    A setting is said to matter where its adjusted p is below 5 % and the forest predicts losses
    that it was not fitted to better than their mean does.

    Args:
        table: of `numbers.importance`.
    """
    matters = (table["p_adjusted"] < LEVEL) & (table["r2"] > 0)
    told = [
        Finding(
            "setting_matters", FAMILY, asserts=True, arms=(row["setting"],), metric=METRIC,
            effect=row["share"], p=row["p"], p_adjusted=row["p_adjusted"], n=row["trials"],
            facts={"r2": row["r2"]},
        )
        for row in table[matters].to_dict("records")
    ]  # fmt: skip
    unclear = table[~matters].to_dict("list")
    if unclear["setting"]:
        noise = Finding(
            "settings_like_noise", FAMILY, arms=tuple(unclear["setting"]), metric=METRIC,
            p_adjusted=min(unclear["p_adjusted"]), n=unclear["trials"][0],
            facts={"r2": unclear["r2"][0]},
        )  # fmt: skip
        told.append(noise)
    return told


def limits(results: Results) -> list[Finding]:
    """Why no importance is shown, and what importance means after a sampler that learns."""
    if results.is_grid:
        return []
    whole = int((search.suggestions(results)["status"] != "stopped").sum())
    if whole < search.MIN_FOR_IMPORTANCE:
        facts = {"needed": search.MIN_FOR_IMPORTANCE}
        return [Finding("limit_few_suggestions", n=whole, facts=facts)]
    learns = results.sweep["search"]["method"] != "random"
    return [Finding("limit_sampler_learns", n=whole)] if learns else []
