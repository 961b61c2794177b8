"""Topics whose sentences are still written beside their numbers, as findings of kind `ready`.

A topic that gets findings of its own leaves here; with the last one this module goes.
"""

from __future__ import annotations

from collections.abc import Iterable

from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.labels import words as labels
from vitbench.analysis.results import Results
from vitbench.analysis.search import numbers as search
from vitbench.analysis.time_to_target import words as speed


def _ready(texts: Iterable[str], family: str = "", *, asserts: bool = False) -> list[Finding]:
    return [
        Finding("ready", family=family, asserts=asserts, facts={"text": text})
        for text in texts
        if text
    ]


def label_findings(results: Results) -> list[Finding]:
    """Which labels are harder; each sentence counts as an assertion."""
    return _ready(labels.findings(results), "labels", asserts=True)


def label_limits(results: Results) -> list[Finding]:
    """What a comparison of labels cannot say."""
    return _ready(labels.limits(results))


def speed_findings(results: Results) -> list[Finding]:
    """Which setting is first at the target."""
    return _ready([speed.finding(results)], "speed", asserts=True)


def speed_limits(results: Results) -> list[Finding]:
    """What the times cannot say."""
    return _ready([speed.limit(results)])


def search_findings(results: Results) -> list[Finding]:
    """When a search found its best, and whether early losses told."""
    if results.sweep["search"]["method"] == "grid":
        return []
    found = search.suggestions(results)
    if found.empty:
        return []
    curve = search.best_so_far(found)
    at = int(curve["loss"].argmin())
    texts = [
        f"The lowest validation loss at any epoch, {curve['loss'].iloc[at]:.4g}, came with "
        f"suggestion {at + 1} of {len(curve)}, after {curve['epochs_spent'].iloc[at]:,} of "
        f"{curve['epochs_spent'].iloc[-1]:,} epochs."
    ]
    if results.sweep["search"]["scheduler"] == "asha":
        known = search.rung_correlation(results).dropna(subset=["tau"]).to_dict("records")
        parts = [f"{row['tau']:.2f} at epoch {row['epoch']} (n = {row['trials']})" for row in known]
        texts.append(
            f"Kendall's tau between the losses at a rung and at the end, of trials that finished: "
            f"{', '.join(parts)}."
            if parts
            else "Too few trials finished to say whether early losses foretold the final ones."
        )
    return _ready(texts)


def search_limits(results: Results) -> list[Finding]:
    """Why no importance is shown."""
    if results.sweep["search"]["method"] == "grid":
        return []
    whole = int((search.suggestions(results)["status"] != "stopped").sum())
    if whole >= search.MIN_FOR_IMPORTANCE:
        return []
    return _ready(
        [
            f"{whole} suggestions ran to an end of their own; the importance of settings needs "
            f"{search.MIN_FOR_IMPORTANCE}, so none is shown."
        ]
    )
