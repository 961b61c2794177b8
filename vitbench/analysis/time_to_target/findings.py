"""Findings on speed: median epochs to a stated accuracy, and which settings arrive sooner."""

from __future__ import annotations

import math

import pandas as pd

from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import all_pairs
from vitbench.analysis.results import Results
from vitbench.analysis.statistics import MIN_SEEDS
from vitbench.analysis.time_to_target import numbers as speed

FAMILY = "time_to_target"
METRIC = "epochs_to_target"


def findings(results: Results) -> list[Finding]:
    """The medians, every pair of settings that is told apart, and the best profile.

    All pairs of settings are one family. They are compared seed by seed in the mean of
    min(epochs to the target, common horizon), which no censoring touches.
    """
    times, arms = speed.times_of(results), speed.arms_of(results)
    if times is None or arms is None:
        return []
    reached = int(times["reached"].sum())
    facts: dict[str, object] = {"target": results.target, "models": len(times), "reached": reached}
    if not reached:
        return [Finding("target_reached_by_none", metric=METRIC, n=len(times), facts=facts)]
    medians = dict(zip(arms["arm"], arms["epochs"], strict=True))
    known = {arm: median for arm, median in medians.items() if math.isfinite(median)}
    facts |= {"medians": known, "settings": len(medians)}
    seeds = int(times["seed"].nunique())
    told = Finding("target_medians", arms=tuple(medians), metric=METRIC, n=seeds, facts=facts)
    return [told, *_sooner(speed.restricted(times), results.target), *_profile(times)]


def _sooner(compared: speed.Restricted, target: float | None) -> list[Finding]:
    """Pairs of settings of which one arrives sooner; the slower stands first."""
    seeds, arms = compared.values.shape
    told, lacking = [], compared.left_out
    if lacking:
        told.append(Finding("target_arms_left_out", arms=lacking, metric=METRIC, n=len(lacking)))
    if arms < 2 or seeds < 2:
        return told
    pairs = all_pairs(compared.values)
    apart = [pair for pair in pairs if pair.told_apart]
    facts: dict[str, object] = {"horizon": compared.horizon, "target": target, "pairs": len(pairs)}
    told += [pair.assertion("target_sooner", FAMILY, METRIC, facts=facts) for pair in apart]
    if not apart:
        told.append(Finding("target_none_sooner", FAMILY, metric=METRIC, n=seeds, facts=facts))
    return told


def _profile(times: pd.DataFrame) -> list[Finding]:
    """The highest score of a performance profile, as a description: scores have no test."""
    profile = speed.profile(speed.ratios(times))
    if profile.empty:
        return []
    scores = profile.groupby("arm", sort=False)["score"].first().to_dict()
    best, count = next(iter(scores)), int(profile["workloads"].iloc[0])
    return [
        Finding(
            "target_profile", arms=(best,), metric="profile_score", effect=scores[best], n=count,
            facts={"scores": scores},
        )
    ]  # fmt: skip


def limits(results: Results) -> list[Finding]:
    """What the times cannot say: a target stated late, whole epochs, trials cut short."""
    times = speed.times_of(results)
    if times is None:
        return []
    seeds = int(results.trials["seed"].nunique())
    censored = int((~times["reached"] & ~times["never"]).sum())
    cut, never = int((~times["whole"]).sum()), int(times["never"].sum())
    facts = {"target": results.target, "cut": cut, "never": never}
    told = []
    if results.target != results.sweep.get("target_accuracy"):  # stated with results in sight
        told.append(Finding("limit_target_late", facts=facts))
    if seeds < MIN_SEEDS:
        told.append(Finding("limit_target_few_seeds", n=seeds, facts=facts))
    if censored:
        told.append(Finding("limit_target_censored", n=censored, facts=facts))
    return told
