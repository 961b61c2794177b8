"""Simulated sweeps whose truth is known, as the results that the real analysis reads."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitbench.analysis.results import Results
from vitbench.records import tables
from vitbench.records.rows import TRIAL_COLUMNS

START = 2.303  # loss before training, ln 10


def losses(
    rng: np.random.Generator,
    means: np.ndarray,
    seeds: int,
    *,
    correlation: float = 0.0,
    seed_sd: float = 0.02,
    noise_sd: float = 0.02,
    shape: str = "normal",
) -> tuple[np.ndarray, np.ndarray]:
    """Validation and test losses, each [seeds, arms]: arm mean + seed + noise.

    Args:
        rng: of this sweep.
        means: true loss of each arm.
        seeds: how many.
        correlation: of the noise in validation and test.
        seed_sd: spread that all arms of a seed share.
        noise_sd: spread of one model.
        shape: of the noise: normal, skewed (lognormal) or heavy (t with three degrees of freedom).
    """
    size = (2, seeds, len(means))
    if shape == "normal":
        own = rng.normal(size=size)
    elif shape == "skewed":
        own = (np.exp(rng.normal(size=size)) - np.exp(0.5)) / 2.16
    else:
        own = rng.standard_t(3, size=size) / np.sqrt(3)
    shared = own[:1]
    noise = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    if correlation > 0:
        noise[0] = own[0]
        noise[1] = correlation * own[0] + np.sqrt(1 - correlation**2) * own[1]
    common = rng.normal(size=(1, seeds, 1))
    both = np.asarray(means)[None, None, :] + seed_sd * common + noise_sd * noise
    return both[0], both[1]


NO_LABELS = tables.no_labels()


@functools.cache
def planned(seeds: int, arms: tuple[tuple[tuple[str, Any], ...], ...]) -> pd.DataFrame:
    """Trials of a grid that all finished, without their losses: seeds by arms."""
    rows = [
        {
            "trial_id": f"{seed}-{number}",
            "stack_id": f"s{number}",
            "status": "finished",
            "seed": seed,
            "lr": 0.001,
            "train_images": 2000,
            **dict(settings),
            "val_accuracy": 0.9,
            "test_accuracy": 0.9,
            "initial_val_loss": START,
            "planned_epochs": 5,
        }
        for seed in range(seeds)
        for number, settings in enumerate(arms)
    ]
    return pd.DataFrame(rows).reindex(columns=list(TRIAL_COLUMNS))


def results(
    val: np.ndarray,
    test: np.ndarray,
    arms: list[dict[str, Any]],
    *,
    claims: list[dict[str, Any]] | None = None,
    labels: pd.DataFrame | None = None,
) -> Results:
    """Results of a grid with these losses, one column of them per arm.

    Args:
        val: validation losses at the last epoch, [seeds, arms].
        test: test losses, [seeds, arms].
        arms: settings of each arm.
        claims: of the sweep file.
        labels: the table of labels; none if left out.
    """
    settings = tuple(tuple(arm.items()) for arm in arms)
    trials = planned(val.shape[0], settings).assign(
        train_loss=val.ravel(), val_loss=val.ravel(), best_val_loss=val.ravel(),
        test_loss=test.ravel(),
    )  # fmt: skip
    space = {name: sorted({arm[name] for arm in arms}, key=str) for name in arms[0]}
    sweep = {
        "name": "simulated",
        "dataset": {"name": "mnist"},
        "train": {"val_images": 5000, "test_images": 5000, "epochs": 5},
        "search": {"method": "grid", "space": {**space, "seed": list(range(len(val)))}},
        "claims": claims or [],
    }
    return Results(
        folder=Path("simulated"),
        trials=trials,
        epochs=pd.DataFrame(columns=["trial_id", "epoch", "val_loss", "val_accuracy"]),
        sweep=sweep,
        environment={"scale": "paper", "images": {"val": 5000, "test": 5000}},
        labels=NO_LABELS if labels is None else labels,
    )
