"""Findings on the settings of a sweep: which is lowest, and which are told apart."""

from __future__ import annotations

import numpy as np

from vitbench.analysis.findings.arms import Arms, by_arm
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import (
    MIN_SEEDS_TO_CLAIM,
    Pair,
    all_pairs,
    smallest_p,
)
from vitbench.analysis.results import Results
from vitbench.analysis.statistics import Floats, mean_interval

FAMILY = "settings"
METRIC = "test_loss"
CHOOSE_BY = "val_loss"


def findings(results: Results) -> list[Finding]:
    """The setting of lowest validation loss, and every pair that differs in test loss.

    Validation chooses, test only judges. All pairs of settings are one family, so it does not
    matter which of them is looked at afterwards.
    """
    chosen, judged = by_arm(results, CHOOSE_BY), by_arm(results, METRIC)
    arms = [str(arm) for arm in chosen.values.columns if arm in judged.values.columns]
    if not arms:
        return _incomplete(chosen)
    if len(arms) == 1 and not chosen.incomplete:
        return [*_only(arms[0], judged), *_incomplete(chosen)]
    pairs = all_pairs(judged.values[arms]) if len(judged.values) > 1 else []
    best = str(chosen.values[arms].mean().idxmin())
    apart = [pair for pair in pairs if pair.told_apart]
    return [
        _lowest(best, chosen, judged, pairs),
        *(
            [_unseen(chosen.values[arms].to_numpy(dtype=np.float64), len(arms))]
            if len(chosen.values) > 1
            else []
        ),
        *(_higher(pair) for pair in apart),
        *_incomplete(chosen),
    ]


def judged_pairs(results: Results) -> list[Pair]:
    """All pairs of complete settings in the metric that judges, corrected as one family."""
    judged = by_arm(results, METRIC)
    return all_pairs(judged.values) if len(judged.values) > 1 else []


def _only(arm: str, judged: Arms) -> list[Finding]:
    mean = mean_interval(judged.values[arm].to_numpy())
    return [
        Finding(
            kind="only_setting",
            metric=METRIC,
            effect=mean.mean,
            low=mean.low,
            high=mean.high,
            n=mean.n,
        )
    ]


def _lowest(best: str, chosen: Arms, judged: Arms, pairs: list[Pair]) -> Finding:
    """The setting with the lowest mean validation loss, and what is known of it against others."""
    with_best = [pair for pair in pairs if best in (pair.a, pair.b)]
    worse = [pair.a for pair in with_best if pair.told_apart and pair.b == best]
    better = [pair.b for pair in with_best if pair.told_apart and pair.a == best]
    unclear = [pair.a if pair.b == best else pair.b for pair in with_best if not pair.told_apart]
    mean = mean_interval(judged.values[best].to_numpy())
    seeds = len(judged.values)
    return Finding(
        kind="lowest_setting",
        family=FAMILY,
        asserts=bool(worse or better),
        arms=(best, *worse),
        metric=METRIC,
        effect=mean.mean,
        low=mean.low,
        high=mean.high,
        p_adjusted=max((p.p_adjusted for p in with_best if p.told_apart), default=None),
        n=seeds,
        facts={
            "settings": len(chosen.values.columns),
            "pairs": len(pairs),
            "worse": worse,
            "better": better,
            "unclear": unclear,
            "smallest_p": smallest_p(seeds),
            "can_claim": seeds >= MIN_SEEDS_TO_CLAIM,
            "seeds_needed": MIN_SEEDS_TO_CLAIM,
            "diverged": judged.diverged,
        },
    )


def _unseen(values_SA: Floats, settings: int) -> Finding:
    """What the choice is worth: each seed scored at the setting that the other seeds choose."""
    scores = [
        row[np.delete(values_SA, seed, axis=0).mean(axis=0).argmin()]
        for seed, row in enumerate(values_SA)
    ]
    mean = mean_interval(scores) if len(values_SA) > 1 else None
    return Finding(
        kind="chosen_on_other_seeds",
        metric=CHOOSE_BY,
        effect=None if mean is None else mean.mean,
        low=None if mean is None else mean.low,
        high=None if mean is None else mean.high,
        n=len(values_SA),
        facts={"settings": settings},
    )


def _higher(pair: Pair) -> Finding:
    return Finding(
        kind="setting_is_higher",
        family=FAMILY,
        asserts=True,
        arms=(pair.a, pair.b),
        metric=METRIC,
        effect=pair.difference.mean,
        low=pair.difference.low,
        high=pair.difference.high,
        p=pair.p,
        p_adjusted=pair.p_adjusted,
        n=pair.difference.n,
    )


def _incomplete(arms: Arms) -> list[Finding]:
    """Settings that lack seeds, and settings that diverged: named, never averaged away."""
    told = []
    if arms.incomplete:
        told.append(
            Finding(kind="settings_incomplete", arms=tuple(arms.incomplete),
                    n=sum(arms.incomplete.values()))
        )  # fmt: skip
    if arms.diverged:
        told.append(
            Finding(
                kind="settings_diverged",
                arms=tuple(arms.diverged),
                n=sum(arms.diverged.values()),
                facts={"of": {arm: int(count) for arm, count in arms.diverged.items()}},
            )
        )
    return told
