"""From a sweep to trials, and from trials to stacks. Pure functions."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vitbench.config import (
    AXES,
    Dataset,
    Model,
    Sweep,
    Train,
    TrialConfig,
    broken_shape_rule,
    is_stackable,
)

__all__ = [
    "StackPlan",
    "TrialConfig",
    "broken_rule",
    "epoch_images",
    "expand",
    "groups_of",
    "members_of",
    "pack",
    "parameter_count",
    "shape_key",
    "stack_flops",
    "train_flops",
]


@dataclass(frozen=True)
class StackPlan:
    """Models that train together: equal in every setting that is not stackable."""

    members: tuple[TrialConfig, ...]

    def __post_init__(self) -> None:
        if len({shape_key(member) for member in self.members}) != 1:
            raise ValueError("the members of a stack differ in a setting that is not stackable")

    @cached_property
    def stack_id(self) -> str:
        """First 12 hex digits of the SHA-256 of the members' ids, in order."""
        ids = ",".join(member.trial_id for member in self.members)
        return hashlib.sha256(ids.encode()).hexdigest()[:12]

    @property
    def size(self) -> int:
        """Number of members K."""
        return len(self.members)

    @property
    def dataset(self) -> Dataset:
        """The data set of all members."""
        return self.members[0].dataset

    @property
    def model(self) -> Model:
        """The model shape of all members."""
        return self.members[0].model

    @property
    def train(self) -> Train:
        """Training settings of the first member; only the stackable ones differ in the others."""
        return self.members[0].train

    def to_json(self) -> str:
        """Text that `from_json` reads back."""
        return json.dumps([member.model_dump(mode="json") for member in self.members])

    @classmethod
    def from_json(cls, text: str) -> StackPlan:
        """Read what `to_json` wrote."""
        return cls(tuple(TrialConfig.model_validate(item) for item in json.loads(text)))


def expand(sweep: Sweep) -> list[TrialConfig]:
    """All trials of a grid, in the order of the file (the last axis varies fastest)."""
    axes = sweep.search.space
    names = list(axes)
    combinations = itertools.product(*(list(axes[name]) for name in names))
    trials = (trial_of(sweep, dict(zip(names, values, strict=True))) for values in combinations)
    return list({trial.trial_id: trial for trial in trials}.values())


def members_of(sweep: Sweep, params: Mapping[str, Any]) -> list[TrialConfig]:
    """The models that a suggestion trains together: its settings x the axes of search.stack."""
    axes = sweep.search.stack
    names = list(axes)
    return [
        trial_of(sweep, {**params, **dict(zip(names, values, strict=True))})
        for values in itertools.product(*(axes[name] for name in names))
    ]


def trial_of(sweep: Sweep, settings: Mapping[str, Any]) -> TrialConfig:
    """The sweep's base settings with some of them replaced, every default filled in."""
    sections = {Dataset: sweep.dataset, Model: sweep.model, Train: sweep.train}
    values = {section: base.model_dump() for section, base in sections.items()}
    for name, value in settings.items():
        values[AXES[name]][name] = value
    model = values[Model]
    model["mlp"] = model["mlp"] or 4 * model["width"]
    return TrialConfig(
        dataset=Dataset.model_validate(values[Dataset]),
        model=Model.model_validate(model),
        train=Train.model_validate(values[Train]),
    )


def broken_rule(sweep: Sweep, settings: Mapping[str, Any]) -> str | None:
    """The rule between settings that a suggestion breaks, or None if it can be trained."""
    known = {
        "heads": sweep.model.heads,
        "width": sweep.model.width,
        "patch_grid": sweep.model.patch_grid,
        "image_size": sweep.dataset.image_size,
    }
    return broken_shape_rule(**{name: settings.get(name, known[name]) for name in known})


def shape_key(trial: TrialConfig) -> str:
    """Equal for trials that may share a stack: every setting but the stackable ones.

    Whether there is a label counts, which one does not: it decides the number of outputs.
    """
    train = trial.train.model_dump(mode="json")
    has_label = train["label"] is not None
    fixed = {name: value for name, value in train.items() if not is_stackable(name)}
    rest = trial.model_dump(mode="json", exclude={"train"})
    return json.dumps({**rest, "train": fixed, "has_label": has_label}, sort_keys=True)


def groups_of(trials: Iterable[TrialConfig]) -> list[list[TrialConfig]]:
    """Trials that may share a stack, group by group in the trials' order."""
    groups: dict[str, list[TrialConfig]] = {}
    for trial in trials:
        groups.setdefault(shape_key(trial), []).append(trial)
    return list(groups.values())


def pack(
    trials: Iterable[TrialConfig],
    *,
    max_members: int | Callable[[TrialConfig], int],
    slots: int,
) -> list[StackPlan]:
    """Group trials into stacks: fill the slots side by side first, then stack the rest.

    Each group of stackable trials gets as many stacks as it has members to fill the slots with,
    or as `max_members` demands, of sizes that differ by one at most and in the trials' order.
    Groups of more work come first, so that a long stack does not start last and run alone.

    Args:
        trials: to group.
        max_members: of one stack; by the first trial of a group, where that decides.
        slots: stacks that run side by side.
    """
    groups = groups_of(trials)
    plans = []
    for members in groups:
        most = max_members(members[0]) if callable(max_members) else max_members
        at_least = -(-len(members) // most)
        share = max(1, slots // len(groups))
        count = max(at_least, min(share, len(members)))
        size, larger = divmod(len(members), count)
        start = 0
        for number in range(count):
            stop = start + size + (number < larger)
            plans.append(StackPlan(tuple(members[start:stop])))
            start = stop
    return sorted(plans, key=lambda plan: -stack_flops(plan) / plan.size)


def parameter_count(model: Model, image_size: int, channels: int, outputs: int) -> int:
    """Parameters of one model; 5,356,618 for the paper's Table 1 (1 channel, 10 outputs)."""
    width, mlp = model.width, model.mlp_width
    patch = (image_size // model.patch_grid) ** 2 * channels
    embedding = patch * width + width + width + (model.patch_grid**2 + 1) * width
    attention = 4 * (width * width + width)
    block = attention + 2 * width * mlp + mlp + width + 4 * width
    return embedding + model.depth * block + 2 * width + width * outputs + outputs


def forward_flops(model: Model, image_size: int, channels: int, outputs: int) -> int:
    """FLOPs of the matrix products of one forward pass over one image (a multiply-add is 2)."""
    width, mlp, patches = model.width, model.mlp_width, model.patch_grid**2
    tokens = patches + 1
    patch = (image_size // model.patch_grid) ** 2 * channels
    projections = 4 * tokens * width * width
    attention = 2 * tokens * tokens * width
    block = projections + attention + 2 * tokens * width * mlp
    return 2 * (patches * patch * width + model.depth * block + width * outputs)


def epoch_images(train: Train) -> int:
    """Images of one epoch of one model; 1 where `train_images` is not known yet."""
    return 2 * train.matched if train.matched is not None else train.train_images or 1


def train_flops(trial: TrialConfig, *, images: int, channels: int = 1, outputs: int = 10) -> float:
    """FLOPs of training one model to its last epoch: a backward pass costs two forward passes."""
    forward = forward_flops(trial.model, trial.dataset.image_size, channels, outputs)
    return 3.0 * forward * images * trial.train.epochs


def stack_flops(plan: StackPlan) -> float:
    """FLOPs of training a stack; `train_images: null` counts as one image, so then relative."""
    images = epoch_images(plan.train)
    return sum(train_flops(member, images=images) for member in plan.members)
