"""Outcomes by learning rate, as a table to paste: means over seeds with their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from vitbench.analysis.findings.arms import by_settings, in_words, shape_names, standing_in
from vitbench.analysis.results import Results
from vitbench.analysis.statistics import Floats, Interval, mean_interval

METRICS = ("val_loss", "test_loss", "val_accuracy", "test_accuracy")


def table(results: Results, at_most: int | None = None) -> list[dict[str, Any]]:
    """A row per model and learning rate, so many at most; empty but for grids over learning rates.

    Keys: `model` (the other settings in words), `lr`, `seeds` (with an end), `diverged`, `lowest`
    (whether its mean validation loss is the lowest of its model's rates that lack no seed) and an
    Interval per metric, with what stands in for models that diverged; None where no seed has it.
    """
    trials = results.trials
    if not results.is_grid or trials["lr"].nunique() < 2:
        return []
    names = shape_names(results)
    frame = trials[[*names, "lr", "status"]].assign(
        **{name: standing_in(trials, name) for name in METRICS}
    )
    rows: list[dict[str, Any]] = []
    for cell, model in by_settings(frame, names, sort=True):
        of_model = []
        lr_N, values_NM = model["lr"].to_numpy(), model[list(METRICS)].to_numpy()
        diverged_N = (model["status"] == "diverged").to_numpy()
        for lr in np.unique(lr_N).tolist():
            at_N = lr_N == lr
            row: dict[str, Any] = {"model": in_words(names, cell), "lr": lr}
            row["seeds"] = int(np.isfinite(values_NM[at_N, 0]).sum())
            row["diverged"] = int(diverged_N[at_N].sum())
            means = [_mean(column) for column in values_NM[at_N].T]
            of_model.append(row | dict(zip(METRICS, means, strict=True)))
        most = max(row["seeds"] for row in of_model)  # a mean of those that survived leads nowhere
        whole = [row for row in of_model if row["val_loss"] and row["seeds"] == most]
        lowest = min((row["val_loss"].mean for row in whole), default=None)
        for row in of_model:
            row["lowest"] = row in whole and row["val_loss"].mean == lowest
        rows += of_model
        if at_most is not None and len(rows) >= at_most:
            break
    return rows[:at_most]


def _mean(values: Floats) -> Interval | None:
    return mean_interval(values) if np.isfinite(values).any() else None
