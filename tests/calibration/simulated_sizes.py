"""Simulated sweeps over numbers of training images, whose curves are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import simulated

from vitbench.analysis.results import Results

SIZES = (64, 128, 256, 512, 1024, 2048)
Truth = Callable[[np.ndarray], np.ndarray]


def power(a: float, b: float, c: float) -> Truth:
    """The law itself."""
    return lambda n: a * np.asarray(n, dtype=float) ** -b + c


def results(
    rng: np.random.Generator,
    truths: dict[str, Truth],
    *,
    seeds: int = 6,
    sizes: tuple[int, ...] = SIZES,
    rates: tuple[float, ...] = (0.001, 0.003),
    penalty: Callable[[int, int], float] = lambda size, rate: 0.0,
    noise: float = 0.06,
    seed_noise: float = 0.05,
    target: float | None = None,
    claims: list[dict[str, Any]] | None = None,
) -> Results:
    """A grid of models (by optimiser) x sizes x rates x seeds.

    Args:
        rng: of this sweep.
        truths: true test error of each optimiser, by number of images.
        seeds, sizes, rates: of the grid.
        penalty: what is added to the log of the true error at a size and a rate, by their places.
        noise, seed_noise: spread of the log error of one model, and of all models of a seed; the
            mean error is the true one.
        target: stated test accuracy.
        claims: of the sweep file.
    """
    arms, log_true = [], []
    for optimizer, truth in truths.items():
        for n, size in enumerate(sizes):
            for r, rate in enumerate(rates):
                arm: dict[str, Any] = {"train_images": size, "lr": rate}
                arms.append({"optimizer": optimizer, **arm} if len(truths) > 1 else arm)
                log_true.append(float(np.log(truth(np.array(size)))) + penalty(n, r))
    shape = (seeds, len(arms))
    common = seed_noise * rng.normal(size=(seeds, 1)) - (noise**2 + seed_noise**2) / 2
    error, val = np.exp(np.array(log_true) + common + noise * rng.normal(size=(2, *shape)))
    val, loss = 2.5 * val, 2.5 * error
    made = simulated.results(val, loss, arms, claims=claims)
    trials = made.trials.assign(
        test_accuracy=1.0 - error.ravel(), steps=512, subset="per_seed", test_images=10_000
    )
    return Results(
        made.folder, trials, made.epochs, made.sweep, made.environment, target, made.labels
    )
