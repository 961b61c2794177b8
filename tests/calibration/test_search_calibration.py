"""How often a report on importance or speed is wrong, over simulated results of known truth."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vitbench.analysis.results import Results
from vitbench.analysis.search import findings as search
from vitbench.analysis.search import numbers
from vitbench.analysis.time_to_target import findings as speed

pytestmark = pytest.mark.long

SWEEPS = int(os.environ.get("VITBENCH_CALIBRATION_SWEEPS", "30"))
# A forest is slow and its level does not depend on its size: four trees, and the fewest
# permutations that can give p < 0.05.
SMALL = {"trees": 4, "permutations": 20}


def too_many(false: int, of: int) -> bool:
    """Whether so many false reports speak against a true rate of 5 % (one-sided, p < 0.001)."""
    return float(stats.binom.sf(false - 1, of, 0.05)) < 0.001


def suggestions(rng: np.random.Generator, n: int, effect: float) -> pd.DataFrame:
    """A random search over lr, depth and heads; loss = effect x |log10 lr + 3| + noise of sd 1."""
    log_lr = rng.uniform(-5, -1, n)
    return pd.DataFrame(
        {
            "lr": 10**log_lr,
            "depth": rng.integers(1, 5, n),
            "heads": rng.integers(1, 4, n),
            "loss": effect * np.abs(log_lr + 3) + rng.normal(size=n),
            "status": "finished",
        }
    )


@pytest.mark.parametrize(("n", "effect"), [(24, 0.0), (24, 3.0)])
def test_noise_is_rarely_called_important(n: int, effect: float) -> None:
    """Of searches at most 5 % name a setting that does not matter, whether or not lr does."""
    rng = np.random.default_rng([n, int(effect)])
    wrong = right = 0
    for number in range(SWEEPS):
        table = numbers.importance(
            suggestions(rng, n, effect), ["lr", "depth", "heads"], seed=number, **SMALL
        )
        named = {finding.arms[0] for finding in search.important(table) if finding.asserts}
        right += "lr" in named and effect > 0
        wrong += bool(named - {"lr"} if effect > 0 else named)
    shown = f"{wrong / SWEEPS:.1%}, power {right / SWEEPS:.0%}"
    print(f"importance: {n} suggestions, effect {effect}: {shown}")
    assert not too_many(wrong, SWEEPS)
    assert effect == 0 or right > 0.15 * SWEEPS


def arrivals(
    rng: np.random.Generator, means: np.ndarray, seeds: int, *, cut: bool = False
) -> Results:
    """A grid whose trials reach 0.9 after so many epochs on average, of 12 that they are given.

    Arrivals are whole epochs, with a shift that all arms of a seed share. Where `cut`, a tenth of
    all trials is stopped at a random epoch, and another tenth diverges.
    """
    trials, epochs = [], []
    for seed in range(seeds):
        shift = rng.normal()
        for number, mean in enumerate(means):
            name = f"{seed}-{number}"
            arrival = max(1, round(mean + shift + 1.5 * rng.normal()))
            fate = rng.choice(["finished", "stopped", "diverged"], p=[0.8, 0.1, 0.1]) if cut else ""
            last = 12 if fate in ("", "finished") else int(rng.integers(1, 13))
            trials.append(
                {"trial_id": name, "lr": 10.0 ** -(number + 1), "seed": seed, "stack_size": 1}
                | {"status": fate or "finished", "images_per_s": 1.0}
            )
            epochs += [
                {"trial_id": name, "epoch": epoch, "epoch_s": 1.0}
                | {"train_loss": 0.4, "val_loss": 0.4}
                | {"val_accuracy": 0.95 if epoch >= arrival else 0.5}
                for epoch in range(1, last + 1)
            ]
    rates = [10.0 ** -(number + 1) for number in range(len(means))]
    sweep = {"search": {"method": "grid", "space": {"lr": rates, "seed": list(range(seeds))}}}
    return Results(Path("made"), pd.DataFrame(trials), pd.DataFrame(epochs), sweep, {}, target=0.9)


@pytest.mark.parametrize(("count", "seeds", "cut"), [(2, 6, False), (9, 6, False), (4, 8, True)])
def test_equal_arms_are_rarely_called_faster(count: int, seeds: int, cut: bool) -> None:
    """Of sweeps whose arms all arrive alike at most 5 % say that one is faster."""
    rng = np.random.default_rng([count, seeds])
    wrong = 0
    for _ in range(SWEEPS):
        made = arrivals(rng, np.full(count, 7.0), seeds, cut=cut)
        wrong += any(finding.asserts for finding in speed.findings(made))
    print(f"time to target, null: {count} arms, {seeds} seeds, cut {cut}: {wrong / SWEEPS:.1%}")
    assert not too_many(wrong, SWEEPS)


def test_faster_arms_are_found() -> None:
    """Five epochs, 2.4 sd of a pair, are found by eight seeds in most sweeps, and never turned."""
    rng = np.random.default_rng(3)
    right = wrong = 0
    for _ in range(SWEEPS // 2):
        told = speed.findings(arrivals(rng, np.array([3.0, 8.0]), 8))
        pairs = [finding.arms for finding in told if finding.asserts]
        right += ("lr 0.01", "lr 0.1") in pairs
        wrong += ("lr 0.1", "lr 0.01") in pairs
    print(f"time to target: power {right / (SWEEPS // 2):.0%}")
    assert wrong == 0 and right > 0.8 * (SWEEPS // 2)
