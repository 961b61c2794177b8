"""Short names of trials and stacks: the settings in which they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vitbench.config import TrialConfig, model_settings
from vitbench.config.axes import MODEL
from vitbench.words import decimal, printable


def settings(trial: TrialConfig) -> dict[str, Any]:
    """All settings of a trial by their field name, e.g. `lr`, `depth`, `image_size`."""
    model = model_settings(trial.model.model_dump())
    return {**trial.dataset.model_dump(), **model, **trial.train.model_dump()}


def varying_fields(trials: Sequence[TrialConfig]) -> list[str]:
    """Names of the settings in which the trials differ, in the order of the sweep file.

    Of several models these are `model`, and what differs among the trials of one of them. Epochs
    that follow from `steps` and the number of images are none.
    """
    groups: dict[Any, list[dict[str, Any]]] = {}
    for trial in trials:
        groups.setdefault(trial.model.name, []).append(settings(trial))
    names = dict.fromkeys(name for group in groups.values() for each in group for name in each)
    by_steps = trials[0].train.steps is not None
    varying = [
        name
        for name in names
        if any(each.get(name) != group[0].get(name) for group in groups.values() for each in group)
        and not (by_steps and name == "epochs")
    ]
    return [MODEL, *varying] if len(groups) > 1 else varying


def describe(members: Sequence[TrialConfig], fields: Sequence[str]) -> str:
    """Name a stack by what varies: `lr=0.003 seed=0`, or `9 x lr=3e-05..0.003 seed=0..2`."""
    parts = []
    for name in fields:
        values: list[Any] = list(dict.fromkeys(settings(m).get(name) for m in members))
        if values == [None]:
            continue
        if len(values) == 1:
            parts.append(f"{name}={value_text(values[0])}")
        elif all(isinstance(v, int | float) for v in values):
            parts.append(f"{name}={value_text(min(values))}..{value_text(max(values))}")
        else:
            parts.append(f"{name}={','.join(map(value_text, values))}")
    text = " ".join(parts) or members[0].trial_id
    return f"{len(members)} x {text}" if len(members) > 1 else text


def value_text(value: Any) -> str:
    """A setting as it stands in names and tables: six digits at most, `-` where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return decimal(value) if isinstance(value, float) else printable(str(value))
