"""Statistics over seeds: against closed forms, brute force and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from vitbench.analysis import statistics


def test_the_t_interval_is_the_textbook_one() -> None:
    """n = 4, sd and mean by hand, t(0.975, 3) = 3.182446."""
    found = statistics.mean_interval([1.0, 2.0, 3.0, 4.0])
    half = 3.182446305 * math.sqrt(5 / 3) / 2
    assert found.mean == 2.5 and found.n == 4
    assert found.low == pytest.approx(2.5 - half) and found.high == pytest.approx(2.5 + half)


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_seeds_give_no_interval_and_no_claim(n: int) -> None:
    """However large the difference."""
    found = statistics.paired({s: 100.0 + s for s in range(n)}, {s: 0.0 for s in range(n)})
    assert (found.difference.low, found.difference.high, found.p) == (None, None, None)
    assert found.claim == "none" and found.difference.mean > 99


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7, 10])
def test_sign_flip_p_counts_all_patterns(n: int) -> None:
    """Equal to brute force over 2^n sign patterns, ties between patterns included."""
    rng = np.random.default_rng(n)
    for d in (rng.normal(0.4, 1, n), rng.integers(-3, 4, n).astype(float), np.ones(n)):
        sums = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=n)]
        expected = np.mean([s >= abs(d.sum()) - 1e-9 for s in sums])
        assert statistics.sign_flip_p(d) == pytest.approx(expected)


def test_five_pairs_never_reach_five_percent_and_six_can() -> None:
    """The smallest p of n pairs is 2 / 2^n: 0.0625 and 0.03125."""
    a = {s: 1.0 + s for s in range(6)}
    b = {s: 0.0 for s in range(6)}
    five = statistics.paired({s: a[s] for s in range(5)}, b)
    six = statistics.paired(a, b)
    assert five.p == 0.0625 and five.claim == "none"
    assert six.p == 0.03125 and six.claim == "greater"


def test_many_pairs_use_random_flips_that_agree_with_the_exact_count() -> None:
    """40 pairs by sampling against 40 pairs by a normal approximation of the flip distribution."""
    d = np.random.default_rng(3).normal(0.3, 1, 40)
    approximate = 2 * stats.norm.sf(abs(d.sum()) / math.sqrt((d**2).sum()))
    assert statistics.sign_flip_p(d) == pytest.approx(approximate, rel=0.1)


def test_correlation_probability_and_ties() -> None:
    """Seeds that move both arms alike: r near 1; P(A > B) counts ties half."""
    a, b = {0: 1.0, 1: 2.0, 2: 3.0, 9: 8.0}, {0: 1.0, 1: 1.0, 2: 2.5, 7: 0.0}
    found = statistics.paired(a, b)
    assert found.pairs == 3
    assert found.correlation == pytest.approx(np.corrcoef([1, 2, 3], [1, 1, 2.5])[0, 1])
    assert found.a_greater == pytest.approx((2 + 0.5) / 3)


@pytest.mark.parametrize("n", [3, 6, 10])
def test_intervals_cover_the_truth_95_times_in_100(n: int) -> None:
    """20,000 simulated comparisons with correlated arms: coverage 95 +- 1 %."""
    rng = np.random.default_rng(n)
    shared, a, b = rng.normal(size=(3, 20_000, n))
    d = (0.3 + shared + 0.5 * a) - (shared + 0.5 * b)
    half = statistics.mean_interval(d[0]).half
    assert half is not None
    hits = 0
    for row in d:
        found = statistics.mean_interval(row)
        assert found.low is not None and found.high is not None
        hits += found.low <= 0.3 <= found.high
    assert hits / len(d) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("n", [3, 5, 6, 9])
def test_at_most_five_percent_of_claims_are_false(n: int) -> None:
    """No difference between the arms: claims in at most 5 % of 8,000 simulations."""
    rng = np.random.default_rng(10 + n)
    claims = 0
    for row in rng.normal(size=(8000, n)):
        claims += statistics.sign_flip_p(row) < 0.05
    assert claims / 8000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 8000)
    if n < 6:
        assert claims == 0
