"""Statistics over seeds: against closed forms, brute force and simulation."""

from __future__ import annotations

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
def test_fewer_than_three_seeds_give_no_interval(n: int) -> None:
    """Two values say nothing of how far a third would lie."""
    found = statistics.mean_interval([100.0 + seed for seed in range(n)])
    assert (found.low, found.high) == (None, None) and found.mean >= 100


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


@pytest.mark.parametrize("ties", [2, 4, 100])
def test_kendalls_tau_is_scipys(ties: int) -> None:
    """With many ties, a few, and none to speak of; constant values have none."""
    rng = np.random.default_rng(ties)
    x, y = rng.integers(0, ties, size=(2, 12)).astype(float)
    assert statistics.kendall_tau(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)
    assert math.isnan(statistics.kendall_tau(np.ones(3), np.arange(3.0)))
