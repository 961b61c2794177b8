"""How many members a stack should have here: the throughput at growing sizes, from real steps."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

import torch

from vitbench.config import TrialConfig
from vitbench.data.image_set import ImageSet
from vitbench.plan import StackPlan
from vitbench.training.stack import Stack

SIZES = (1, 2, 4, 8, 16, 32, 64)
# A larger stack must be worth its memory and its coarser scheduling.
MIN_GAIN = 1.05
# The first steps allocate; on CUDA five of RAdam and three eager ones precede the capture.
_WARM_UP_STEPS, _STEPS = 12, 12


def throughput(
    trial: TrialConfig, images: ImageSet, device: torch.device, *, at_most: int
) -> dict[int, float]:
    """Training images a second of all members together, by stack size.

    Sizes grow until one gains less than 5 % over the one before, or does not fit into memory.

    Args:
        trial: one of the models; the others differ from it in their seeds.
        images: cut to the sizes that the trial asks for.
        at_most: members that there are to train.
    """
    speeds: dict[int, float] = {}
    for size in (s for s in SIZES if s <= max(1, at_most)):
        members = [
            trial.model_copy(update={"train": trial.train.model_copy(update={"seed": seed})})
            for seed in range(size)
        ]
        try:
            speed = _speed(StackPlan(tuple(members)), images, device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        worth_it = _gains(speed, speeds.values())
        speeds[size] = speed
        if not worth_it:
            break
    return speeds


def choose(speeds: Mapping[int, float]) -> int:
    """The largest size that gains 5 % over every smaller one; 1 where none does."""
    good = [
        size
        for size, speed in speeds.items()
        if _gains(speed, [speeds[smaller] for smaller in speeds if smaller < size])
    ]
    return max(good, default=1)


def _gains(speed: float, smaller: Collection[float]) -> bool:
    return speed >= MIN_GAIN * max(smaller, default=0.0)


def _speed(plan: StackPlan, images: ImageSet, device: torch.device) -> float:
    stack = Stack(plan, images, device)
    stack.train_epoch(1, max_steps=_WARM_UP_STEPS)
    started_s = time.perf_counter()
    stack.train_epoch(2, max_steps=_STEPS)  # reads its sums back: everything has been computed
    seconds = time.perf_counter() - started_s
    steps = min(_STEPS, stack.steps_per_epoch)
    return plan.size * min(steps * plan.shared.train.batch_size, stack.images_per_epoch) / seconds
