"""From a sweep to its trials."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from vitbench.config import AXES, Dataset, Model, Sweep, Train, TrialConfig, broken_shape_rule


def expand(sweep: Sweep) -> list[TrialConfig]:
    """All trials of a grid, in the order of the file (the last axis varies fastest)."""
    trials = (trial_of(sweep, settings) for settings in _combinations(sweep.search.space))
    return list({trial.trial_id: trial for trial in trials}.values())


def members_of(sweep: Sweep, params: Mapping[str, Any]) -> list[TrialConfig]:
    """The models that a suggestion trains together: its settings x the axes of search.inner."""
    return [trial_of(sweep, {**params, **inner}) for inner in _combinations(sweep.search.inner)]


def _combinations(axes: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*(list(axis) for axis in axes.values())):
        yield dict(zip(axes, values, strict=True))


def trial_of(sweep: Sweep, settings: Mapping[str, Any]) -> TrialConfig:
    """The sweep's base settings with some of them replaced, every default filled in."""
    sections = {Dataset: sweep.dataset, Model: sweep.model, Train: sweep.train}
    values = {section: base.model_dump() for section, base in sections.items()}
    for name, value in settings.items():
        values[AXES[name]][name] = value
    model = values[Model]
    model["mlp"] = model["mlp"] or 4 * model["width"]
    train = values[Train]
    if train["steps"] is not None:
        train["epochs"] = math.ceil(train["steps"] / _steps_per_epoch(train))
    varied = "train_images" in sweep.search.space
    drawn = train["subset"] or ("per_seed" if varied else "shared")
    train["subset"] = drawn if drawn == "per_seed" else None
    return TrialConfig(
        dataset=Dataset.model_validate(values[Dataset]),
        model=Model.model_validate(model),
        train=Train.model_validate(train),
    )


def _steps_per_epoch(train: Mapping[str, Any]) -> int:
    """Updates of one pass over the training images, whose number is known once they are opened."""
    images = train["train_images"] if train["matched"] is None else 2 * train["matched"]
    if images is None:
        raise ValueError("train.steps needs train_images, which data.prepare fills in")
    return math.ceil(int(images) / int(train["batch_size"]))


def broken_rule(sweep: Sweep, settings: Mapping[str, Any]) -> str | None:
    """The rule between settings that a suggestion breaks, or None if it can be trained."""
    known = {
        "heads": sweep.model.heads,
        "width": sweep.model.width,
        "patch_grid": sweep.model.patch_grid,
        "image_size": sweep.dataset.image_size,
    }
    return broken_shape_rule(**{name: settings.get(name, known[name]) for name in known})
