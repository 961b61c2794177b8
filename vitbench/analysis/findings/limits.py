"""What the results cannot tell: partial sweeps, few seeds, few images, small scales."""

from __future__ import annotations

import math

import pandas as pd

from vitbench.analysis.findings.arms import above_start, chance_of
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import MIN_SEEDS_TO_CLAIM
from vitbench.analysis.results import Results
from vitbench.analysis.statistics import MIN_SEEDS

_MANY_IMAGES = 2000
_Z = 1.96  # of a 95 % interval


def limits(results: Results) -> list[Finding]:
    """Everything that a reader must know before believing the findings."""
    trials = results.trials
    told = []
    waiting = int(trials["status"].isin(["planned", "running"]).sum())
    if waiting:
        told.append(Finding("limit_partial", n=waiting))
    if results.sweep.get("claims"):
        told.append(Finding("limit_claims_apart"))
    seeds, has_labels = int(trials["seed"].nunique()), not results.labels.empty
    if seeds < MIN_SEEDS_TO_CLAIM:
        facts = {"labels": has_labels, "intervals": seeds >= MIN_SEEDS}
        told.append(Finding("limit_few_seeds", n=seeds, facts=facts))
    # Tables of earlier versions do not say it: there all seeds shared their images.
    shared = "subset" not in trials or (trials["subset"].fillna("shared") == "shared").any()
    if seeds > 1 and shared:
        told.append(Finding("limit_one_subset", n=seeds))
    scale = results.scale
    if scale not in (None, "paper"):
        told.append(
            Finding(
                "limit_scale",
                facts={
                    "scale": scale,
                    "images": _largest(results, "train_images"),
                    "epochs": _largest(results, "planned_epochs"),
                    "steps": _largest(results, "steps"),
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
    if above := int(above_start(trials).sum()):
        told.append(Finding("limit_above_start", n=above))
    facts = {"labels": has_labels, "search": not results.is_grid}
    told.append(Finding("limit_last_epoch", facts=facts))
    return told


def _largest(results: Results, column: str) -> int | None:
    if column not in results.trials:  # tables of an earlier version
        return None
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
    """How far an accuracy is known from so many images, by the accuracy that was reached.

    The interval is Wilson's (1927, doi:10.1080/01621459.1927.10502953), which has a width where
    all images or none are right.
    """
    told = []
    for split in ("val", "test"):
        count = _images(results, split)
        if not count:
            told.append(Finding("limit_images_unknown", facts={"split": split}))
        elif count < _MANY_IMAGES:
            reached = results.trials[f"{split}_accuracy"].astype(float).max()
            if math.isfinite(reached):
                part = _Z**2 / count
                middle = (reached + part / 2) / (1 + part)
                spread = reached * (1 - reached) / count + part / (4 * count)
                half = _Z * math.sqrt(spread) / (1 + part)
                told.append(
                    Finding(
                        "limit_few_images", metric=f"{split}_accuracy", effect=reached,
                        low=middle - half, high=middle + half, n=count,
                        facts={"split": split, "chance": chance_of(results)},
                    )
                )  # fmt: skip
    return told
