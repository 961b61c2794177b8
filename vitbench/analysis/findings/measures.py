"""What claims compare: the metric of every trial, from whichever table holds it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from vitbench.analysis.findings.arms import standing_in
from vitbench.analysis.results import Results
from vitbench.config.claims import ATTENTION_METRICS, LABEL_METRICS
from vitbench.records.labels import entropy

# What a constant answer scores, and whether a model that learned less scores higher.
_NOTHING_LEARNED = {
    "train_loss_over_constant": (1.0, True),
    "nce": (1.0, True),
    "excess": (1.0, True),
    "ap_norm": (0.0, False),
    "roc_auc": (0.5, False),
    "mcc": (0.0, False),
}


@dataclass(frozen=True)
class Untested:
    """Why results cannot judge a claim; worded by the macro `claim_why`.

    Attributes:
        why: which reason it is.
        about: the arms, settings or metric that it names.
        n: seeds that are missing, or values that are too few.
    """

    why: Literal[
        "no_trial", "no_other_arm", "not_varied", "seeds_missing", "unlike_settings",
        "few_values", "no_measure", "no_spread", "no_extent",
    ]  # fmt: skip
    about: tuple[str, ...] = ()
    n: int = 0


class UntestedError(Exception):
    """These results cannot judge a claim."""

    def __init__(self, reason: Untested) -> None:
        super().__init__(reason)
        self.reason = reason


def by_trial(results: Results, metric: str) -> pd.Series:
    """The metric of every trial, in the order of the trials table; missing where there is none.

    For a model that diverged stands what a model scores that has learned nothing, and no other
    model counts as worse than that. The attention of a model that diverged is unknown.

    Args:
        results: of a sweep.
        metric: one that a claim may name (config.claims.ClaimMetric).

    Raises:
        UntestedError: if no trial has it.
    """
    if metric in LABEL_METRICS:
        values = _of_labels(results, metric)
    elif metric in ATTENTION_METRICS:
        values = _of_attention(results, metric)
    elif metric == "extent":
        values = _of_drawings(results)
    else:
        values = standing_in(results.trials, metric)
    if values.isna().all():
        raise UntestedError(Untested("no_measure", (metric,)))
    return values


def _of_labels(results: Results, metric: str) -> pd.Series:
    """A measure of the labels table, of models that learned one label."""
    trials = results.trials
    alone = results.labels[results.labels["task"] == "one label"].set_index("trial_id")
    if metric == "train_loss_over_constant":
        constant = alone["train_base_rate"].astype(float).map(entropy)
        measured = alone["train_loss"].astype(float) / constant.replace(0.0, math.nan)
    else:
        measured = alone[metric].astype(float)
    values = trials["trial_id"].map(measured).astype(float)
    nothing, is_upper = _NOTHING_LEARNED[metric]
    values = values.clip(upper=nothing) if is_upper else values.clip(lower=nothing)
    diverged = (trials["status"] == "diverged") & trials["label"].notna()
    values = values.where(np.isfinite(values) & ~diverged)
    values = values.mask(diverged, nothing)
    return values.where(trials["status"].isin(["finished", "diverged"]))


def _of_attention(results: Results, metric: str) -> pd.Series:
    """A measure of the last layer's map, of models that finished (see attention.export.spread)."""
    path = results.folder / "attention" / "spread.csv"
    if not path.is_file():
        raise UntestedError(Untested("no_spread"))
    measured = pd.read_csv(path).set_index("trial_id")
    if metric not in measured:
        raise UntestedError(Untested("no_measure", (metric,)))
    trials = results.trials
    values = trials["trial_id"].map(measured[metric].astype(float))
    return values.where(trials["status"] == "finished").astype(float)


def _of_drawings(results: Results) -> pd.Series:
    """Share of a face that the label of each model changes, where faces are drawn."""
    if results.dataset != "faces":
        raise UntestedError(Untested("no_extent", (results.dataset,)))
    from vitbench.data.sets.faces import faces  # numpy's random drawing: slow to import

    return results.trials["label"].map(faces.EXTENTS).astype(float)
