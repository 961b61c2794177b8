"""How often a report on settings or claims is wrong, over simulated sweeps of known truth."""

from __future__ import annotations

import os

import numpy as np
import pytest
import simulated
from scipy import stats

from vitbench.analysis.findings import claims, settings

SWEEPS = int(os.environ.get("VITBENCH_CALIBRATION_SWEEPS", "40"))


def too_many(false: int, of: int) -> bool:
    """Whether so many false reports speak against a true rate of 5 % (one-sided, p < 0.001)."""
    return float(stats.binom.sf(false - 1, of, 0.05)) < 0.001


def arms(count: int) -> list[dict[str, float]]:
    return [{"lr": 1e-5 * 2.0**k} for k in range(count)]


@pytest.mark.parametrize("correlation", [0.0, 0.95])
@pytest.mark.parametrize("seeds", [3, 6, 10])
@pytest.mark.parametrize("count", [2, 9, 24])
def test_equal_settings_are_rarely_told_apart(count: int, seeds: int, correlation: float) -> None:
    """Of sweeps whose settings are all equal at most 5 % have any assertion about settings."""
    rng = np.random.default_rng([count, seeds, int(100 * correlation)])
    wrong = 0
    for _ in range(SWEEPS):
        val, test = simulated.losses(rng, np.full(count, 0.5), seeds, correlation=correlation)
        found = settings.findings(simulated.results(val, test, arms(count)))
        wrong += any(finding.asserts for finding in found)
    print(f"settings, null: {count} arms, {seeds} seeds, r {correlation}: {wrong / SWEEPS:.1%}")
    assert not too_many(wrong, SWEEPS)
    assert seeds >= 6 or wrong == 0


@pytest.mark.parametrize("shape", ["skewed", "heavy"])
def test_noise_that_is_not_normal_misleads_no_more(shape: str) -> None:
    """Skewed and heavy-tailed seeds, as training has them, keep the level."""
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(SWEEPS):
        val, test = simulated.losses(rng, np.full(9, 0.5), 6, shape=shape)
        found = settings.findings(simulated.results(val, test, arms(9)))
        wrong += any(finding.asserts for finding in found)
    assert not too_many(wrong, SWEEPS)


@pytest.mark.parametrize("effect_sd", [1.0, 2.0, 3.5])
@pytest.mark.parametrize(("count", "seeds"), [(3, 6), (9, 6), (9, 10)])
def test_half_of_the_settings_are_worse(count: int, seeds: int, effect_sd: float) -> None:
    """Assertions about equal ones stay rare where others differ, and true differences are found.

    The effect is in standard deviations of the difference of two settings at one seed.
    """
    rng = np.random.default_rng([7, count, seeds, int(10 * effect_sd)])
    is_worse = np.arange(count) >= (count + 1) // 2
    truth = np.where(is_worse, 0.5 + effect_sd * 0.02 * np.sqrt(2), 0.5)
    names = [f"lr {arm['lr']:.5f}" for arm in arms(count)]
    mean_of = dict(zip(names, truth, strict=True))
    wrong = found_pairs = true_pairs = 0
    for _ in range(SWEEPS):
        val, test = simulated.losses(rng, truth, seeds, correlation=0.5)
        found = settings.findings(simulated.results(val, test, arms(count)))
        pairs = [f.arms for f in found if f.kind == "setting_is_higher"]
        wrong += any(mean_of[a] <= mean_of[b] for a, b in pairs)
        found_pairs += sum(mean_of[a] > mean_of[b] for a, b in pairs)
        true_pairs += int(is_worse.sum() * (~is_worse).sum())
    power = found_pairs / true_pairs
    shown = f"{count} arms, {seeds} seeds, {effect_sd} sd: {wrong / SWEEPS:.1%}, power {power:.0%}"
    print(f"settings, effect: {shown}")
    assert not too_many(wrong, SWEEPS)
    assert effect_sd < 3 or power > 0.5


def claim(name: str, relation: str, **fields: object) -> dict[str, object]:
    return {"id": name, "says": name, "metric": "test_loss", "is": relation, **fields}


def test_claims_about_equal_settings_stay_undecided() -> None:
    """A file of several claims on equal settings: at most 5 % of files decide any of them."""
    asked = [
        claim("first", "highest", of={"lr": 1e-5}),
        claim("second", "lower", of={"lr": 2e-5}, than={"lr": 4e-5}),
        claim("third", "ordered", of=[{"lr": 1e-5}, {"lr": 2e-5}, {"lr": 8e-5}]),
    ]
    rng = np.random.default_rng(11)
    wrong = 0
    for _ in range(SWEEPS):
        val, test = simulated.losses(rng, np.full(5, 0.5), 6)
        verdicts = claims.judge(simulated.results(val, test, arms(5), claims=asked))
        wrong += any(v.verdict in (claims.SUPPORTED, claims.REFUTED) for v in verdicts)
    print(f"claims, null: {wrong / SWEEPS:.1%}")
    assert not too_many(wrong, SWEEPS)


def test_claims_are_decided_by_large_differences() -> None:
    """Of a true claim and its opposite, one is supported and the other refuted."""
    asked = [
        claim("true", "highest", of={"lr": 1e-5}),
        claim("false", "lower", of={"lr": 1e-5}, than={"lr": 4e-5}),
        claim("margin", "higher", of={"lr": 1e-5}, than={"lr": 4e-5}, margin=10.0),
    ]
    rng = np.random.default_rng(12)
    val, test = simulated.losses(rng, np.array([1.5, 0.5, 0.5, 0.5]), 6)
    verdicts = claims.judge(simulated.results(val, test, arms(4), claims=asked))
    assert [v.verdict for v in verdicts] == [claims.SUPPORTED, claims.REFUTED, claims.REFUTED]
    assert all(v.added_after for v in verdicts)
