"""The noise floor of a label's cross entropy, against labels that were really flipped."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vitbench.data.sets.faces.faces import BASE_RATES
from vitbench.records.labels import excess, noise_floor


@pytest.mark.parametrize(
    ("label", "floor"), [("Eyeglasses", 0.505), ("Smiling", 0.142), ("Wavy_Hair", 0.166)]
)
def test_floor_of_matched_labels(label: str, floor: float) -> None:
    """At 2 % flips matching hurts the rare label most: half of its entropy is noise."""
    assert noise_floor(0.5, BASE_RATES[label], 0.02) == pytest.approx(floor, abs=0.001)


@pytest.mark.parametrize("matched", [True, False])
@pytest.mark.parametrize(("true_rate", "noise"), [(0.05, 0.02), (0.3, 0.05), (0.5, 0.1)])
def test_floor_is_what_an_oracle_scores(true_rate: float, noise: float, matched: bool) -> None:
    """Flip a million labels, match them, and answer each true side by its share of labels."""
    rng = np.random.default_rng(3)
    truth = rng.random(1_000_000) < true_rate
    labels = truth ^ (rng.random(len(truth)) < noise)
    rate, kept = labels.mean(), np.arange(len(truth))
    if matched:
        yes, no = np.flatnonzero(labels), np.flatnonzero(~labels)
        count = min(len(yes), len(no))
        kept = np.concatenate([rng.permutation(yes)[:count], rng.permutation(no)[:count]])
    truth, labels = truth[kept], labels[kept]
    answers = np.where(truth, labels[truth].mean(), labels[~truth].mean())
    bce = -np.log(np.where(labels, answers, 1 - answers)).mean()
    w = labels.mean()
    constant = -w * np.log(w) - (1 - w) * np.log(1 - w)
    assert noise_floor(float(w), float(rate), noise) == pytest.approx(bce / constant, abs=0.01)


def test_floor_is_zero_without_noise_and_unknown_where_impossible() -> None:
    """Fewer positives than flips alone would give contradict the rate of flips."""
    assert noise_floor(0.5, 0.065, 0.0) == 0.0
    assert math.isnan(noise_floor(0.01, 0.01, 0.02))
    assert math.isnan(noise_floor(0.0, 0.3, 0.02))


def test_excess_is_zero_for_the_truth_and_one_for_nothing_learned() -> None:
    """Whatever the floor."""
    assert (excess(0.505, 0.505), excess(1.0, 0.505)) == (0.0, 1.0)
