"""A tiny image set and plans for it: real classes, seconds to train."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vitbench.config import Dataset, Model, Train, TrialConfig
from vitbench.data.image_set import ImageSet, Split
from vitbench.plan import StackPlan
from vitbench.training.engine import METRICS, EpochReport, FitResult, fit


def image_set(train: int = 22, val: int = 9, test: int = 7) -> ImageSet:
    """Seeded noise with a bright corner that tells the class (3 classes, 8x8 pixels)."""
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        targets = rng.integers(0, 3, size=(count, 1))
        images = rng.integers(0, 120, size=(count, 1, 8, 8), dtype=np.uint8)
        for image, target in zip(images, targets[:, 0], strict=True):
            image[0, :2, 2 * target : 2 * target + 2] += 130
        return Split(images, targets)

    return ImageSet(
        name="tiny",
        train=split(train),
        val=split(val),
        test=split(test),
        classes=("a", "b", "c"),
        labels=("a", "b", "c"),
        mean=(0.3,),
        std=(0.25,),
        checksum="0" * 64,
        source="seeded noise",
    )


def plan(
    *members: dict[str, Any], depth: int = 2, dropout: float = 0.0, **shared: Any
) -> StackPlan:
    """A stack of small models with batches of 5; each dict sets stackable fields of a member."""
    model = Model(patch_grid=2, depth=depth, heads=2, width=8, mlp=12, dropout=dropout)
    train = {"epochs": 3, "batch_size": 5, **shared}
    return StackPlan(
        tuple(
            TrialConfig(
                dataset=Dataset(name="digits", image_size=8),
                model=model,
                train=Train(**{**train, **member}),
            )
            for member in members or ({},)
        )
    )


def train(
    images: ImageSet, asked: StackPlan, *, stop_after: int | None = None, **settings: Any
) -> tuple[dict[str, list[dict[str, Any]]], FitResult]:
    """Fit on the CPU; rows by trial without the times."""
    rows: dict[str, list[dict[str, Any]]] = {}

    def report(epoch: EpochReport) -> bool:
        for row in epoch.rows:
            kept = {name: getattr(row, name) for name in ("epoch", *METRICS)}
            rows.setdefault(row.trial_id, []).append(kept)
        return epoch.epoch != stop_after

    return rows, fit(asked, images, device=torch.device("cpu"), report=report, **settings)
