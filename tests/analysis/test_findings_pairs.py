"""Comparisons of all pairs at once: by brute force, and the promises that reports rest on."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from vitbench.analysis.findings import pairs


def brute_force(values: np.ndarray) -> dict[tuple[int, int], float]:
    """Step-down max-T over joint sign flips, written with loops from the definition."""
    seeds, arms = values.shape
    names = list(itertools.combinations(range(arms), 2))
    d = {(a, b): values[:, a] - values[:, b] for a, b in names}
    rms = {name: float(np.sqrt(np.mean(d[name] ** 2))) for name in names}
    s0 = float(np.median(list(rms.values())))

    def statistic(name: tuple[int, int], signs: tuple[int, ...]) -> float:
        return abs(sum(s * x for s, x in zip(signs, d[name], strict=True))) / (rms[name] + s0)

    every = list(itertools.product((1, -1), repeat=seeds))
    seen = {name: statistic(name, every[0]) for name in names}
    left = sorted(names, key=lambda name: -seen[name])
    adjusted, so_far = {}, 0.0
    while left:
        extreme = [
            max(statistic(name, signs) for name in left) >= seen[left[0]] - 1e-9 for signs in every
        ]
        so_far = max(so_far, sum(extreme) / len(every))
        adjusted[left.pop(0)] = so_far
    return adjusted


@pytest.mark.parametrize(("seeds", "arms"), [(5, 3), (6, 4)])
def test_adjusted_p_equals_brute_force(seeds: int, arms: int) -> None:
    """The vectorised step-down is the definition's, pair by pair."""
    values = np.random.default_rng(seeds).normal(size=(seeds, arms))
    values[:, 0] += 4
    frame = pd.DataFrame(values, columns=[str(arm) for arm in range(arms)])
    expected = brute_force(values)
    for pair in pairs.all_pairs(frame):
        key = tuple(sorted((int(pair.a), int(pair.b))))
        assert pair.p_adjusted == pytest.approx(expected[key])
        assert pair.p <= pair.p_adjusted


def test_one_pair_alone_is_the_sign_flip_test() -> None:
    """With a single pair nothing is corrected: p is scipy's exact permutation test."""
    from scipy import stats

    d = np.array([0.3, -0.1, 0.4, 0.2, 0.5, 0.1])
    frame = pd.DataFrame({"a": d, "b": np.zeros(6)})
    (pair,) = pairs.all_pairs(frame)
    exact = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert pair.p == pair.p_adjusted == pytest.approx(exact.pvalue)
    assert (pair.a, pair.b) == ("a", "b")


def test_six_seeds_are_enough_for_many_arms() -> None:
    """All pairs flip together, so that 24 arms cost no more seeds than two: p stays 2 / 2^6."""
    rng = np.random.default_rng(1)
    values = pd.DataFrame(rng.normal(size=(6, 24)) * 0.1 + np.arange(24) * 10)
    found = pairs.all_pairs(values.rename(columns=str))
    assert {pair.p_adjusted for pair in found} == {2 / 2**6}
    assert pairs.smallest_p(6) < pairs.LEVEL <= pairs.smallest_p(5)
    assert pairs.MIN_SEEDS_TO_CLAIM == 6


def test_equal_arms_are_not_told_apart_and_nothing_divides_by_zero() -> None:
    """Identical numbers in every seed: p is 1, not an error."""
    frame = pd.DataFrame({"a": np.ones(6), "b": np.ones(6), "c": np.ones(6)})
    assert [pair.p_adjusted for pair in pairs.all_pairs(frame)] == [1.0, 1.0, 1.0]


def test_gaps_are_refused() -> None:
    """An arm that lacks a seed must be left out by the caller, never averaged over the rest."""
    with pytest.raises(ValueError, match="every arm needs a value"):
        pairs.all_pairs(pd.DataFrame({"a": [1.0, np.nan], "b": [1.0, 2.0]}))


def test_many_seeds_are_drawn_from_all_flips() -> None:
    """Beyond 13 seeds the flips are drawn; the observed pattern is among them, so p > 0."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"a": rng.normal(size=20) + 5, "b": rng.normal(size=20)})
    (pair,) = pairs.all_pairs(frame)
    assert 0 < pair.p_adjusted < 0.001
