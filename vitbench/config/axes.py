"""What may vary in a sweep, by the names that axes have in `search.space` and `search.inner`.

lr            a setting of `model` or `train`
args.width    an argument of the model's builder
model         one of `models`
cnn.lr        either of the first two, of the model `cnn` alone
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from vitbench.config.models import Model, Sweep, Train
from vitbench.config.search import Range, Section

MODEL = "model"
ARGS = "args."
_NO_AXES = ("build", "args", "name", "source")  # of Model
AXES: dict[str, type[Section]] = {
    **{name: Model for name in Model.model_fields if name not in _NO_AXES},
    **{name: Train for name in Train.model_fields if name not in ("augment", "loss_source")},
}


def setting_of(axis: str) -> str:
    """The setting that an axis varies: `lr` of `cnn.lr`."""
    head, dot, rest = axis.partition(".")
    return rest if dot and f"{head}." != ARGS else axis


def owner_of(axis: str) -> str | None:
    """The name of the model that an axis belongs to; None for all models."""
    return axis.partition(".")[0] if setting_of(axis) != axis else None


@functools.cache  # asked of every setting of every trial of a grid
def is_stackable(axis: str) -> bool:
    """Whether members of one stack may differ in this setting."""
    section = AXES.get(setting_of(axis))
    extra = section.model_fields[setting_of(axis)].json_schema_extra if section else None
    return isinstance(extra, dict) and bool(extra.get("stackable"))


def is_whole(axis: str, values: Range | None = None) -> bool:
    """Whether the values of this setting are whole numbers (it may also be left out).

    Of an argument of a builder a range tells: it is whole where its ends and its step are.
    """
    name = setting_of(axis)
    if name not in AXES:
        ends = () if values is None else (values.low, values.high, values.step)
        return bool(ends) and all(end is not None and end == int(end) for end in ends)
    annotation = AXES[name].model_fields[name].annotation
    return annotation is int or int in get_args(annotation)


def axes_of(axes: Mapping[str, Any], model: str | None) -> Iterator[tuple[str, Any]]:
    """The axes that a model has, in order: its own, and those of all models that it has not.

    The axis `model` is not among them.
    """
    for axis, values in axes.items():
        owner = owner_of(axis)
        own = model is not None and f"{model}.{axis}" in axes
        if axis != MODEL and (owner == model if owner else not own):
            yield axis, values


def models_of(sweep: Sweep) -> list[str | None]:
    """Names of the models that a sweep trains; [None] where it has one without a name."""
    chosen = sweep.search.space.get(MODEL)
    return [str(name) for name in chosen] if isinstance(chosen, list) else [None]


def model_settings(model: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model (a dump of `Model`) under the names of their axes and columns.

    `model` is its name, or what builds it; a builder's model has none of the ViT's settings.
    """
    build = model.get("build")
    flat = {MODEL: model.get("name") or build}
    flat |= {key: None if build else model.get(key) for key in AXES if AXES[key] is Model}
    return flat | {f"{ARGS}{key}": value for key, value in (model.get("args") or {}).items()}
