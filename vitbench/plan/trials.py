"""From a sweep to its trials."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from vitbench.config import (
    AXES,
    Dataset,
    Model,
    Sweep,
    Train,
    TrialConfig,
    axes_of,
    broken_shape_rule,
    models_of,
    setting_of,
)
from vitbench.config.axes import ARGS, MODEL


def expand(sweep: Sweep) -> list[TrialConfig]:
    """All trials of a grid, in the order of the file (the last axis varies fastest).

    Where there are several models, those of one model stand together.
    """
    trials = (
        trial_of(sweep, {**_named(model), **settings})
        for model in models_of(sweep)
        for settings in _combinations(dict(axes_of(sweep.search.space, model)))
    )
    return list({trial.trial_id: trial for trial in trials}.values())


def members_of(sweep: Sweep, params: Mapping[str, Any]) -> list[TrialConfig]:
    """The models that a suggestion trains together: its settings x the axes of search.inner."""
    inner = dict(axes_of(sweep.search.inner, params.get(MODEL)))
    return [trial_of(sweep, {**params, **settings}) for settings in _combinations(inner)]


def _named(model: str | None) -> dict[str, str]:
    return {} if model is None else {MODEL: model}


def _combinations(axes: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*(list(axis) for axis in axes.values())):
        yield dict(zip(axes, values, strict=True))


def trial_of(sweep: Sweep, settings: Mapping[str, Any]) -> TrialConfig:
    """The sweep's base settings with some of them replaced, every default filled in."""
    name = settings.get(MODEL)
    base = sweep.model if name is None else sweep.models[name]
    dataset, model, train = (s.model_dump() for s in (sweep.dataset, base, sweep.train))
    model |= {"name": name, "args": dict(base.args)}
    sections = {Dataset: dataset, Model: model, Train: train}
    for axis, value in axes_of(settings, name):
        setting = setting_of(axis)
        if setting.startswith(ARGS):
            model["args"][setting.removeprefix(ARGS)] = value
        else:
            sections[AXES[setting]][setting] = value
    if model["build"] is None:
        model["mlp"] = model["mlp"] or 4 * model["width"]
    if train["steps"] is not None:
        train["epochs"] = math.ceil(train["steps"] / _steps_per_epoch(train))
    varied = "train_images" in sweep.search.space
    drawn = train["subset"] or ("per_seed" if varied else "shared")
    train["subset"] = drawn if drawn == "per_seed" else None
    return TrialConfig(
        dataset=Dataset.model_validate(dataset),
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
    name = settings.get(MODEL)
    model = sweep.model if name is None else sweep.models[name]
    if model.build is not None:
        return None
    known = {
        "heads": model.heads,
        "width": model.width,
        "patch_grid": model.patch_grid,
        "image_size": sweep.dataset.image_size,
    }
    own = {setting_of(axis): value for axis, value in axes_of(settings, name)}
    return broken_shape_rule(**{key: own.get(key, known[key]) for key in known})
