"""What a search is told: best over learning rates of the mean over seeds, always finite."""

from __future__ import annotations

import math

import pytest

from vitbench.config import Dataset, Model, Train
from vitbench.plan import TrialConfig
from vitbench.records.types import Status, TrialOutcome
from vitbench.tuning.search import objective


def members(lrs: list[float], seeds: list[int]) -> list[TrialConfig]:
    return [
        TrialConfig(dataset=Dataset(name="digits"), model=Model(), train=Train(lr=lr, seed=seed))
        for lr in lrs
        for seed in seeds
    ]


def by_id(trials: list[TrialConfig], values: list[float]) -> dict[str, float]:
    return {trial.trial_id: value for trial, value in zip(trials, values, strict=True)}


def test_best_arm_is_the_best_mean_and_not_the_best_run() -> None:
    """One lucky seed must not win against a learning rate that is better on average."""
    trials = members([0.1, 0.01], [0, 1])
    values = by_id(trials, [0.1, 0.9, 0.4, 0.4])
    found = objective.best_arm(trials, values, objective="val_loss", stand_in=9.0)
    assert found == pytest.approx(0.4)


def test_labels_count_alike_each_at_its_best_rate() -> None:
    """A suggestion is not judged by its easiest label, nor all labels at one learning rate."""
    trials = [
        TrialConfig(
            dataset=Dataset(name="faces", labels=["a", "b"]),
            model=Model(),
            train=Train(lr=lr, seed=seed, label=label),
        )
        for label in ("a", "b")
        for lr in (0.1, 0.01)
        for seed in (0, 1)
    ]
    values = by_id(trials, [0.1, 0.3, 0.9, 0.9, 0.8, 0.8, 0.5, 0.7])
    found = objective.best_arm(trials, values, objective="val_loss", stand_in=9.0)
    assert found == pytest.approx((0.2 + 0.6) / 2)


def test_accuracy_is_maximised() -> None:
    """The same arms judged by accuracy: more is better."""
    trials = members([0.1, 0.01], [0])
    found = objective.best_arm(
        trials, by_id(trials, [0.6, 0.8]), objective="val_accuracy", stand_in=0.0
    )
    assert found == pytest.approx(0.8)


def test_a_diverged_seed_counts_as_the_stand_in() -> None:
    """A learning rate at which one of two seeds diverges is not judged by the other alone."""
    trials = members([0.1], [0, 1])
    values = by_id(trials, [0.2, math.nan])
    found = objective.best_arm(trials, values, objective="val_loss", stand_in=5.0)
    assert found == pytest.approx(2.6)


def test_a_stack_in_which_all_diverged_has_the_stand_in_for_its_value() -> None:
    """Finite, and the very number that the caller chose."""
    trials = members([0.1], [0, 1])
    found = objective.best_arm(trials, {}, objective="val_loss", stand_in=5.0)
    assert found == 5.0


def test_worst_is_finite_and_no_better_than_anything_seen() -> None:
    """Optuna refuses NaN, and a diverged run must never look good."""
    assert objective.worst("val_loss", [0.3, 7.0, math.inf], outputs=10) == 7.0
    assert objective.worst("val_loss", [], outputs=10) == pytest.approx(2 * math.log(10))
    assert objective.worst("val_accuracy", [0.9], outputs=10) == 0.0


def test_lr_sensitivity_by_hand() -> None:
    """Losses 0.2, 0.5 and diverged (capped at 2.3): mean excess over 0.2 is (0 + 0.3 + 2.1) / 3."""
    trials = members([0.001, 0.01, 0.1], [0])
    values = by_id(trials, [0.2, 0.5, math.nan])
    assert objective.lr_sensitivity(trials, values, 2.3) == pytest.approx(0.8)


def test_final_metric_skips_diverged_models() -> None:
    """A model that diverged late may have had a good best epoch; it is not offered as good."""
    rows = [
        TrialOutcome(trial_id="a", status=Status.FINISHED, best_val_loss=0.3),
        TrialOutcome(trial_id="b", status=Status.DIVERGED, best_val_loss=0.1),
    ]
    assert objective.final_metric(rows, "val_loss") == {"a": 0.3}
