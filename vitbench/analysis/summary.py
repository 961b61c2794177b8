"""Everything that a results folder supports: claims, findings and limits, as types and as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vitbench.analysis.attention import findings as attention_findings
from vitbench.analysis.findings import claims, limits, settings
from vitbench.analysis.findings.arms import by_arm, labels, names_of
from vitbench.analysis.findings.claims import Verdict
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.render import claim_sentence, sentence
from vitbench.analysis.labels import findings as label_findings
from vitbench.analysis.learning_rate import findings as learning_rate
from vitbench.analysis.results import Results
from vitbench.analysis.search import findings as search
from vitbench.analysis.time_to_target import findings as time_to_target

# Topics in the order of the report; each returns its findings, none where it has nothing to say.
TOPICS: tuple[Callable[[Results], list[Finding]], ...] = (
    settings.findings,
    learning_rate.findings,
    search.findings,
    time_to_target.findings,
    label_findings.findings,
    attention_findings.findings,
)


@dataclass(frozen=True)
class Summary:
    """What the results support, and what they cannot tell."""

    claims: list[Verdict]
    findings: list[Finding]
    limits: list[Finding]


def summarise(results: Results) -> Summary:
    """Judge the claims, collect the findings of every topic and the limits."""
    findings = [finding for topic in TOPICS for finding in topic(results)]
    return Summary(claims.judge(results), findings, limits.limits(results))


def as_json(results: Results, summary: Summary) -> dict[str, Any]:
    """The one JSON object that `vitbench analysis RESULTS --json` prints (docs/results.md)."""
    return {
        "dataset": results.dataset,
        "scale": results.environment.get("scale"),
        "partial": results.partial,
        "arms": _arms(results),
        "findings": [
            {
                "kind": finding.kind,
                "family": finding.family,
                "text": sentence(finding),
                "asserts": finding.asserts,
                "arms": list(finding.arms),
                "metric": finding.metric,
                "effect": _finite(finding.effect),
                "low": _finite(finding.low),
                "high": _finite(finding.high),
                "p": _finite(finding.p),
                "p_adjusted": _finite(finding.p_adjusted),
                "n": finding.n,
            }
            for finding in summary.findings
        ],
        "claims": [
            {
                "id": verdict.claim.id,
                "text": verdict.claim.says,
                "verdict": verdict.verdict,
                "sentence": claim_sentence(verdict),
                "metric": verdict.claim.metric,
                "effect": _finite(verdict.effect),
                "low": _finite(verdict.low),
                "high": _finite(verdict.high),
                "p_adjusted": _finite(verdict.p_adjusted),
                "n": verdict.n,
                "family": verdict.claim.family,
                "added_after": verdict.added_after,
                "why": verdict.why,
            }
            for verdict in summary.claims
        ],
        "limits": [sentence(limit) for limit in summary.limits],
    }


def _arms(results: Results) -> list[dict[str, Any]]:
    """Every arm: its settings, its seeds, and how many of them have no end or diverged."""
    names = names_of(results)
    arms = by_arm(results, "val_loss")
    trials = results.trials.assign(arm=labels(results.trials, names))
    return [
        {
            "name": str(arm),
            "settings": {name: _plain(part[name].iloc[0]) for name in names},
            "seeds": int(part["seed"].nunique()),
            "without_end": arms.incomplete.get(str(arm), 0),
            "diverged": arms.diverged.get(str(arm), 0),
        }
        for arm, part in trials.groupby("arm", sort=False)
    ]


def _plain(value: Any) -> Any:
    """A cell of a table as JSON has it."""
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
