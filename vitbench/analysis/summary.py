"""Everything that a results folder supports: claims, findings and limits, as types and as JSON."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pandas as pd
from scipy import special

from vitbench.analysis.attention import by_rate as attention_by_rate
from vitbench.analysis.attention import findings as attention
from vitbench.analysis.data_size import findings as data_size
from vitbench.analysis.findings import claims, limits, settings
from vitbench.analysis.findings.arms import by_arm, named_trials, names_of
from vitbench.analysis.findings.claims import Verdict
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.power import DETECTABLE_SD
from vitbench.analysis.findings.render import claim_sentence, claim_why, sentence
from vitbench.analysis.labels import findings as label_findings
from vitbench.analysis.learning_rate import findings as learning_rate
from vitbench.analysis.results import Results, computed_once
from vitbench.analysis.search import findings as search
from vitbench.analysis.statistics import LEVEL
from vitbench.analysis.time_to_target import findings as time_to_target

Source = Callable[[Results], list[Finding]]
# Topics in the order of the report: their findings and their limits. A new topic is a line here.
TOPICS: tuple[tuple[Source, Source | None], ...] = (
    (settings.findings, limits.limits),
    (label_findings.findings, label_findings.limits),
    (data_size.findings, data_size.limits),
    (learning_rate.findings, None),
    (search.findings, search.limits),
    (time_to_target.findings, time_to_target.limits),
    (attention.findings, attention.limits),
    (attention_by_rate.findings, None),
)


@dataclass(frozen=True)
class Summary:
    """What the results support, and what they cannot tell."""

    claims: list[Verdict]
    findings: list[Finding]
    limits: list[Finding]


class ArmJson(TypedDict):
    """One setting of the sweep: everything but the seed."""

    name: Annotated[str, "in words, as findings name it"]
    settings: Annotated[dict[str, Any], "value of each axis of the sweep by its column"]
    seeds: Annotated[int, "seeds that the sweep has of it"]
    without_end: Annotated[int, "of which so many have no end of their own"]
    diverged: Annotated[int, "of which so many diverged"]


class FindingJson(TypedDict):
    """One sentence of the report with what it rests on."""

    kind: Annotated[str, "which sentence it is: the name of its template"]
    family: Annotated[str, "findings corrected together; empty for those that assert nothing"]
    text: Annotated[str, "the sentence"]
    asserts: Annotated[
        bool,
        "whether it says that one thing is better, worse, higher, wider, first or associated, or "
        "that an order holds; of such sentences at most 5 % of families hold any false one",
    ]
    arms: Annotated[list[str], "what it is about; the one that is higher, worse or first leads"]
    metric: Annotated[str, "column that was compared; empty for none"]
    effect: Annotated[float | None, "estimate in units of the metric"]
    low: Annotated[float | None, "lower end of its 95 % interval"]
    high: Annotated[float | None, "upper end"]
    p: Annotated[float | None, "of this comparison alone, two-sided"]
    p_adjusted: Annotated[float | None, "over its family"]
    n: Annotated[int, "seeds, labels, models or images that it rests on"]


class ClaimJson(TypedDict):
    """One claim of the sweep file, judged."""

    id: Annotated[str, "of the sweep file"]
    text: Annotated[str, "the claim as stated"]
    verdict: Annotated[str, "supported, refuted, undecided or not tested"]
    sentence: Annotated[str, "the claim with its verdict and numbers"]
    metric: Annotated[str, "column that was compared"]
    effect: Annotated[float | None, "difference (or rank correlation) that decided"]
    low: Annotated[float | None, "lower end of its 95 % interval"]
    high: Annotated[float | None, "upper end"]
    p_adjusted: Annotated[float | None, "over the claims of its family"]
    n: Annotated[int, "seeds, or units of an association"]
    family: Annotated[str, "claims corrected together"]
    added_after: Annotated[bool, "whether it was not stated when the first trial started"]
    why: Annotated[str, "what was compared, or why it was not tested"]
    detectable: Annotated[
        float | None,
        "difference that so many seeds find with 80 % power, one comparison at a time, where seeds "
        "vary as they did here",
    ]


class SummaryJson(TypedDict):
    """The whole object."""

    dataset: Annotated[str, "data set that was really used"]
    scale: Annotated[str | None, "as chosen with --scale"]
    partial: Annotated[bool, "whether some trial has no end yet"]
    arms: Annotated[list[ArmJson], "every setting of the sweep"]
    findings: Annotated[list[FindingJson], "what the results support"]
    claims: Annotated[list[ClaimJson], "claims of the sweep file; empty where it states none"]
    limits: Annotated[list[str], "what the results cannot tell, a sentence each"]


# Pairs of settings have a table of their own.
_IN_A_TABLE = "setting_is_higher"
_MOST_OF_A_KIND = 30  # in a row: a grid of 10,000 models can give 60,000 of one


@computed_once
def summarise(results: Results) -> Summary:
    """Judge the claims, collect the findings and the limits of every topic."""
    return Summary(
        claims=claims.judge(results),
        findings=[finding for topic, _ in TOPICS for finding in topic(results)],
        limits=[limit for _, topic in TOPICS if topic is not None for limit in topic(results)],
    )


def listed(results: Results) -> list[Finding]:
    """The findings without those that a table of the report lists one by one."""
    return [found for found in summarise(results).findings if found.kind != _IN_A_TABLE]


def sentences(results: Results) -> list[str]:
    """The listed findings in words; where many are of one kind, how many more there are."""
    told: list[str] = []
    for _, kind in itertools.groupby(listed(results), lambda finding: finding.kind):
        found = list(kind)
        most = _MOST_OF_A_KIND if len(found) > _MOST_OF_A_KIND + 1 else len(found)
        told += [sentence(finding) for finding in found[:most]]
        if rest := len(found) - most:
            told.append(sentence(Finding("more_of_a_kind", n=rest)))
    return told


def as_json(results: Results) -> SummaryJson:
    """The one JSON object that `python -m vitbench.analysis RESULTS --json` prints."""
    summary, env = summarise(results), results.environment
    return {
        "dataset": results.dataset,
        "scale": None if env.get("scales") == [] else env.get("scale"),  # a file may have none
        "partial": results.partial,
        "arms": _arms(results),
        "findings": findings_json(summary.findings),
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
                "why": claim_why(verdict),
                "detectable": _detectable(verdict),
            }
            for verdict in summary.claims
        ],
        "limits": [sentence(limit) for limit in summary.limits],
    }


def _detectable(verdict: Verdict) -> float | None:
    """The standard deviation of the difference, out of its t interval, times what is detectable."""
    known = DETECTABLE_SD.get(verdict.n)
    if verdict.low is None or verdict.high is None or known is None:
        return None
    t = float(special.stdtrit(verdict.n - 1, (1 + LEVEL) / 2))
    return known * (verdict.high - verdict.low) / 2 * math.sqrt(verdict.n) / t


def findings_json(findings: Sequence[Finding]) -> list[FindingJson]:
    """Findings as JSON has them, with their sentences."""
    return [
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
        for finding in findings
    ]


def _arms(results: Results) -> list[ArmJson]:
    """Every arm: its settings, its seeds, and how many of them have no end or diverged."""
    names = names_of(results)
    arms = by_arm(results, "val_loss")
    trials = named_trials(results)
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
