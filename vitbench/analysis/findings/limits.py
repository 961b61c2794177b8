"""What the results cannot tell: partial sweeps, few seeds, few images, small scales."""

from __future__ import annotations

import math

import pandas as pd

from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import MIN_SEEDS_TO_CLAIM, smallest_p
from vitbench.analysis.results import Results
from vitbench.analysis.statistics import MIN_SEEDS

_MANY_IMAGES = 2000


def limits(results: Results) -> list[Finding]:
    """Everything that a reader must know before believing the findings."""
    trials = results.trials
    told = []
    waiting = int(trials["status"].isin(["planned", "running"]).sum())
    if waiting:
        told.append(Finding("limit_partial", n=waiting))
    seeds = int(trials["seed"].nunique())
    if seeds < MIN_SEEDS_TO_CLAIM:
        told.append(
            Finding(
                "limit_few_seeds",
                n=seeds,
                facts={
                    "smallest_p": smallest_p(seeds),
                    "needed": MIN_SEEDS_TO_CLAIM,
                    "intervals": seeds >= MIN_SEEDS,
                },
            )
        )
    if seeds > 1:
        told.append(Finding("limit_one_subset", n=seeds))
    scale = results.environment.get("scale", "paper")
    if scale != "paper":
        told.append(
            Finding(
                "limit_scale",
                facts={
                    "scale": scale,
                    "images": _largest(results, "train_images"),
                    "epochs": _largest(results, "planned_epochs"),
                },
            )
        )
    source = str(results.environment.get("image_source", results.dataset))
    if results.dataset == "digits":
        told.append(Finding("limit_digits", facts={"source": source}))
    if results.dataset == "faces":
        told.append(Finding("limit_faces"))
    told += _few_images(results)
    if (trials["status"] == "stopped").any():
        told.append(Finding("limit_stopped", n=int((trials["status"] == "stopped").sum())))
    failed = int(trials["status"].isin(["crashed", "oom"]).sum())
    if failed:
        told.append(Finding("limit_failed", n=failed))
    told.append(Finding("limit_last_epoch"))
    return told


def _largest(results: Results, column: str) -> int | None:
    values = results.trials[column].dropna()
    return int(values.max()) if len(values) else None


def _images(results: Results, split: str) -> int | None:
    """Images that accuracies rest on: the fewest that the tables name, or the environment."""
    column = f"{split}_images"
    for table in (results.labels, results.trials):
        known = table[column].dropna() if column in table else pd.Series(dtype="Int64")
        if len(known):
            return int(known.min())
    counts = results.environment.get("images") or {}
    count = counts.get(split) or results.sweep["train"].get(column)
    return None if count is None else int(count)


def _few_images(results: Results) -> list[Finding]:
    """How far an accuracy is known from so many images, by the accuracy that was reached."""
    told = []
    for split in ("val", "test"):
        count = _images(results, split)
        if not count:
            told.append(Finding("limit_images_unknown", facts={"split": split}))
        elif count < _MANY_IMAGES:
            reached = results.trials[f"{split}_accuracy"].astype(float).max()
            if math.isfinite(reached):
                points = 196 * math.sqrt(reached * (1 - reached) / count)
                facts = {"split": split, "accuracy": reached, "points": points}
                told.append(Finding("limit_few_images", n=int(count), facts=facts))
    return told
