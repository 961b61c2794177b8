"""Findings on a search: its lowest loss, whether early losses foretold final ones, what matters."""

from __future__ import annotations

import pandas as pd

from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import LEVEL
from vitbench.analysis.results import Results
from vitbench.analysis.search import numbers as search

FAMILY = "importance"
METRIC = "best_val_loss"


def findings(results: Results) -> list[Finding]:
    """Of a search; a grid has none, its settings are compared with each other."""
    if results.sweep["search"]["method"] == "grid":
        return []
    made = search.suggestions(results)
    if made.empty:
        return []
    return [_lowest(made), *_rungs(results), *important(search.importance_of(results))]


def _lowest(made: pd.DataFrame) -> Finding:
    """The lowest loss and what luck alone would make of the lowest of so many."""
    curve = search.best_so_far(made)
    at = int(curve["loss"].argmin())
    return Finding(
        "search_lowest",
        metric=METRIC,
        effect=float(curve["loss"].iloc[at]),
        n=len(curve),
        facts={
            "suggestion": at + 1,
            "spent": int(curve["epochs_spent"].iloc[at]),
            "epochs": int(curve["epochs_spent"].iloc[-1]),
            "luck_sd": -search.lowest_of(len(curve)),
        },
    )


def _rungs(results: Results) -> list[Finding]:
    if results.sweep["search"]["scheduler"] != "asha":
        return []
    table = search.rung_correlation(results).dropna(subset=["tau"])
    rows = table.to_dict("records")
    kind = "search_rungs" if rows else "search_rungs_unknown"
    count = max((int(row["trials"]) for row in rows), default=0)
    return [Finding(kind, metric="val_loss", n=count, facts={"rungs": rows})]


def important(table: pd.DataFrame) -> list[Finding]:
    """Settings whose share noise does not explain; then the others, without a claim.

    A setting is said to matter where its adjusted p is below 5 % and the forest predicts losses
    that it was not fitted to better than their mean does.

    Args:
        table: of `numbers.importance`.
    """
    told, unclear = [], []
    for row in table.to_dict("records"):
        if not (row["p_adjusted"] < LEVEL and row["r2"] > 0):
            unclear.append(row)
            continue
        told.append(
            Finding(
                "setting_matters",
                FAMILY,
                asserts=True,
                arms=(str(row["setting"]),),
                metric=METRIC,
                effect=float(row["share"]),
                p=float(row["p"]),
                p_adjusted=float(row["p_adjusted"]),
                n=int(row["trials"]),
                facts={"r2": float(row["r2"])},
            )
        )
    if unclear:
        told.append(
            Finding(
                "settings_like_noise",
                FAMILY,
                arms=tuple(str(row["setting"]) for row in unclear),
                metric=METRIC,
                p_adjusted=min(float(row["p_adjusted"]) for row in unclear),
                n=int(unclear[0]["trials"]),
                facts={"r2": float(unclear[0]["r2"])},
            )
        )
    return told


def limits(results: Results) -> list[Finding]:
    """Why no importance is shown, and what importance means after a sampler that learns."""
    if results.sweep["search"]["method"] == "grid":
        return []
    made = search.suggestions(results)
    whole = int((made["status"] != "stopped").sum())
    if whole < search.MIN_FOR_IMPORTANCE:
        facts = {"needed": search.MIN_FOR_IMPORTANCE}
        return [Finding("limit_few_suggestions", n=whole, facts=facts)]
    if results.sweep["search"]["method"] != "random":
        return [Finding("limit_sampler_learns", n=whole)]
    return []
