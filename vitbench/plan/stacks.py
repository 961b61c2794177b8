"""Stacks of models that train together, and how trials are grouped into them. Needs no Ray."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from vitbench.config import (
    Dataset,
    Model,
    Resources,
    SharedTrain,
    Sweep,
    TrialConfig,
    identity,
    is_stackable,
)
from vitbench.hardware import cpu_count, local_gpu_count
from vitbench.plan.cost import epoch_images, train_flops

# What `stack_size: auto` is where nothing was measured. On a GPU a stack costs little more than one
# model until the device is full; on a CPU one process per core is the fastest there is, and stacks
# gain for small models alone (benchmarks/RESULTS.md).
AUTO_MEMBERS_GPU = 16
AUTO_MEMBERS_CPU = 1


@dataclass(frozen=True)
class Shared:
    """What all members of a stack have in common; stackable settings are not among it."""

    dataset: Dataset
    model: Model
    train: SharedTrain
    has_label: bool  # each member learns one label, so that it has one output


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

    @cached_property
    def shared(self) -> Shared:
        """The settings that all members have; what may differ is read from each member."""
        first = self.members[0]
        common = {name: getattr(first.train, name) for name in SharedTrain.model_fields}
        return Shared(
            dataset=first.dataset,
            model=first.model,
            train=SharedTrain.model_construct(**common),
            has_label=first.train.label is not None,
        )

    def to_json(self) -> str:
        """Text that `from_json` reads back."""
        return json.dumps([member.model_dump(mode="json") for member in self.members])

    @classmethod
    def from_json(cls, text: str) -> StackPlan:
        """Read what `to_json` wrote."""
        return cls(tuple(TrialConfig.model_validate(item) for item in json.loads(text)))


def shape_key(trial: TrialConfig) -> str:
    """Equal for trials that may share a stack: every setting but the stackable ones.

    Whether there is a label counts, which one does not: it decides the number of outputs.
    """
    content = identity.identifying(trial.model_dump(mode="json"))
    shared = {name: v for name, v in content["train"].items() if not is_stackable(name)}
    has_label = trial.train.label is not None
    return json.dumps({**content, "train": shared, "has_label": has_label}, sort_keys=True)


def groups_of(trials: Iterable[TrialConfig]) -> list[list[TrialConfig]]:
    """Trials that may share a stack, group by group in the trials' order."""
    groups: dict[str, list[TrialConfig]] = {}
    for trial in trials:
        groups.setdefault(shape_key(trial), []).append(trial)
    return list(groups.values())


def pack(
    trials: Iterable[TrialConfig], *, max_members: int | Callable[[TrialConfig], int], slots: int
) -> list[StackPlan]:
    """Group trials into stacks: fill the slots side by side first, then stack the rest.

    Each group of stackable trials gets as many stacks as it has members to fill the slots with,
    or as `max_members` demands, then as many as fill them again, of sizes that differ by one at
    most and in the trials' order. Groups of more work come first, so that a long stack does not
    start last and run alone. The first trial of a group may decide on `max_members`.
    """
    groups = groups_of(trials)
    plans = []
    for members in groups:
        most = max_members(members[0]) if callable(max_members) else max_members
        at_least = -(-len(members) // most)
        share = max(1, slots // len(groups))
        count = min(-(-at_least // share) * share, len(members))
        size, larger = divmod(len(members), count)
        waiting = iter(members)
        for number in range(count):
            part = itertools.islice(waiting, size + (number < larger))
            plans.append(StackPlan(tuple(part)))
    return sorted(plans, key=lambda plan: -stack_flops(plan) / plan.size)


def stack_flops(plan: StackPlan) -> float:
    """FLOPs of training a stack; `train_images: null` counts as one image, so then relative."""
    images = epoch_images(plan.shared.train)
    return sum(train_flops(member, images=images) for member in plan.members)


def stacks_of(
    sweep: Sweep,
    trials: Sequence[TrialConfig],
    *,
    slots: int,
    on_gpu: bool,
    auto: Callable[[TrialConfig], int] | None = None,
) -> list[StackPlan]:
    """Group trials into stacks the way the hardware likes them (see `stack_size:` in the sweep).

    `auto` gives the members at most where the sweep leaves that to the hardware and it was asked.
    """
    if sweep.stack_size != "auto":
        return pack(trials, max_members=sweep.stack_size, slots=slots)
    fixed = AUTO_MEMBERS_GPU if on_gpu else AUTO_MEMBERS_CPU
    return pack(trials, max_members=auto or fixed, slots=slots)


def gpus_per_worker(resources: Resources, available: float) -> float:
    """Resolve `gpus: auto`: one GPU per worker where there is any, else none."""
    if resources.gpus == "auto":
        return 1.0 if available >= 1 else 0.0
    return float(resources.gpus)


def slots_of(
    resources: Resources, nodes: Iterable[tuple[float, float]], *, gpus_each: float
) -> int:
    """Stacks that nodes with so many CPUs and GPUs hold at once.

    A worker lives on one node; the workers of a stack may be spread over several.
    """
    workers = 0
    for cpus, gpus in nodes:
        fits = int(cpus // resources.cpus_at_least)
        workers += min(fits, int(gpus // gpus_each)) if gpus_each else fits
    return workers // resources.workers


def local_slots(resources: Resources) -> tuple[int, bool]:
    """Stacks that this machine holds at once (at least 1), and whether they use a GPU."""
    gpus = local_gpu_count()
    gpus_each = gpus_per_worker(resources, gpus)
    slots = slots_of(resources, [(cpu_count(), gpus)], gpus_each=gpus_each)
    return max(1, slots), gpus_each > 0
