"""Findings on the settings of a sweep: which is lowest, and which are told apart.

Losses of different labels are not compared: where the sweep varies the label, settings are
compared within each label, all labels' pairs as one family.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from vitbench.analysis.findings.arms import Arms, by_arm, chance_of
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import (
    Pair,
    adjusted,
    contrasts,
)
from vitbench.analysis.results import Results, computed_once
from vitbench.analysis.statistics import Floats, chosen_by_others, mean_interval

FAMILY = "settings"
METRIC = "test_loss"
ACCURACY = "test_accuracy"
CHOOSE_BY = "val_loss"


def findings(results: Results) -> list[Finding]:
    """The setting of lowest validation loss, and every pair that differs in test loss.

    Validation chooses, test only judges. All pairs of settings are one family, so it does not
    matter which of them is looked at afterwards.
    """
    chosen, judged = by_arm(results, CHOOSE_BY), judged_arms(results)
    groups = _comparable(chosen, judged)
    count = len(chosen.settings)
    if not results.trials["status"].isin(["finished", "diverged"]).any():
        return [Finding("no_trial_ended", n=len(results.trials))]
    if (results.trials["status"] == "diverged").all():
        return [Finding("all_diverged", n=len(results.trials))]
    if count == 1 and groups:
        return [_only(judged), *_incomplete(chosen)]
    pairs = judged_pairs(results)
    told: list[Finding] = []
    for label, arms in groups.items():
        if len(arms) > 1:
            told += _of_group(results, label, arms, chosen, judged, pairs)
    return [*told, *(_higher(pair) for pair in pairs if pair.told_apart), *_incomplete(chosen)]


@computed_once
def judged_arms(results: Results) -> Arms:
    """The metric that judges by seed and arm."""
    return by_arm(results, METRIC)


@computed_once
def judged_pairs(results: Results) -> list[Pair]:
    """All pairs of comparable settings in the metric that judges, corrected as one family."""
    judged = judged_arms(results)
    if len(judged.values) < 2:
        return []
    groups = _comparable(judged, judged).values()
    return adjusted(
        list(itertools.chain.from_iterable(contrasts(judged.values[arms]) for arms in groups))
    )


def _comparable(chosen: Arms, judged: Arms) -> dict[str, list[str]]:
    """Complete arms by label: losses of one label are compared with each other alone."""
    known = [arm for arm in chosen.values.columns if arm in judged.values.columns]
    if "label" not in chosen.names:
        return {"": [str(arm) for arm in known]} if known else {}
    labels = chosen.settings.loc[known, "label"].map(lambda x: "" if pd.isna(x) else str(x))
    return {str(k): [str(a) for a in v.index] for k, v in labels.groupby(labels, sort=False)}


def _only(judged: Arms) -> Finding:
    (arm,) = judged.values.columns
    mean = mean_interval(judged.values[arm].to_numpy())
    return Finding(
        kind="only_setting", metric=METRIC, effect=mean.mean, low=mean.low, high=mean.high, n=mean.n
    )


def _of_group(
    results: Results,
    label: str,
    arms: list[str],
    chosen: Arms,
    judged: Arms,
    pairs: Sequence[Pair],
) -> list[Finding]:
    """The setting of lowest loss among comparable ones, and what its choice is worth."""
    best = str(chosen.values[arms].mean().idxmin())
    values_SA = chosen.values[arms].to_numpy(dtype=np.float64)
    accuracy = by_arm(results, ACCURACY).values.get(best)
    known = {
        "accuracy": None if accuracy is None else float(accuracy.mean()),
        "chance": chance_of(results, label),
    }
    lowest = _lowest(best, label, arms, judged, pairs)
    lowest = replace(lowest, facts={**lowest.facts, **known})
    return [lowest, _unseen(values_SA, best, label)]


def _lowest(best: str, label: str, arms: list[str], judged: Arms, pairs: Sequence[Pair]) -> Finding:
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
        arms=(best, *worse, *better),
        metric=METRIC,
        effect=mean.mean,
        low=mean.low,
        high=mean.high,
        p_adjusted=max((p.p_adjusted for p in with_best if p.told_apart), default=None),
        n=seeds,
        facts={
            "settings": len(arms),
            "label": label,
            "pairs": len(pairs),
            "worse": worse,
            "better": better,
            "unclear": unclear,
        },
    )


def _unseen(values_SA: Floats, best: str, label: str) -> Finding:
    """What the choice is worth: each seed scored at the setting that the other seeds choose.

    With one seed it cannot be known: the lowest of many is then low by chance, too.
    """
    if len(values_SA) < 2:
        facts = {"settings": values_SA.shape[1], "label": label}
        return Finding("lowest_of_one_seed", arms=(best,), metric=CHOOSE_BY, n=1, facts=facts)
    mean = mean_interval(chosen_by_others(values_SA))
    return Finding(
        kind="chosen_on_other_seeds",
        metric=CHOOSE_BY,
        effect=mean.mean,
        low=mean.low,
        high=mean.high,
        n=len(values_SA),
        facts={"label": label, "chosen": float(values_SA.mean(axis=0).min())},
    )


def _higher(pair: Pair) -> Finding:
    return pair.assertion("setting_is_higher", FAMILY, METRIC)


def _incomplete(arms: Arms) -> list[Finding]:
    """Settings that lack seeds, and settings that diverged: named, never averaged away."""
    told = []
    for kind, counts in (
        ("settings_incomplete", arms.incomplete),
        ("settings_diverged", arms.diverged),
    ):
        if counts:
            told.append(
                Finding(
                    kind, arms=tuple(counts), n=sum(counts.values()), facts={"of": dict(counts)}
                )
            )
    return told
