"""How many members a stack should have here: the throughput at growing sizes, from real steps.

A stack that does not fit into memory after all is trained in halves.
"""

from __future__ import annotations

import contextlib
import logging
import time
import traceback
from collections.abc import Callable, Collection, Mapping

import torch

from vitbench.config import Precision, TrialConfig
from vitbench.data.image_set import ImageSet
from vitbench.plan import StackPlan
from vitbench.records.types import StackReport, Status, TrialOutcome
from vitbench.training.stack import Stack

logger = logging.getLogger(__name__)

SIZES = (1, 2, 4, 8, 16, 32, 64)
# A larger stack must be worth its memory and its coarser scheduling.
MIN_GAIN = 1.05
# The first steps allocate; on CUDA five of RAdam and three eager ones precede the capture. A CPU
# allocates once, and what else runs there disturbs it: the best of three short blocks counts.
_WARM_UP_STEPS = {"cuda": 12, "cpu": 2}
_STEPS = {"cuda": [12], "cpu": [4, 4, 4]}
# On a CPU: no model whose step takes longer has gained by stacking (x0.9 at 80 ms, x1.33 at 6 ms,
# benchmarks/RESULTS.md), and no larger stack is tried after so long.
_LARGE_STEP_S, _TRY_S = 0.03, 2.0


def throughput(
    trial: TrialConfig,
    images: ImageSet,
    device: torch.device,
    *,
    at_most: int,
    precision: Precision = "auto",
) -> dict[int, float]:
    """Training images a second of all members together, by stack size.

    Sizes grow until one gains less than 5 % over the one before, or does not fit into memory; on a
    CPU also until two seconds are over, and where one step is long one model is all there is.

    Args:
        trial: one of the models; the others differ from it in their seeds.
        images: cut to the sizes that the trial asks for.
        at_most: members that there are to train.
        precision: what the trial's `auto` stands for.
    """
    started_s, on_cpu = time.perf_counter(), device.type == "cpu"
    speeds: dict[int, float] = {}
    for size in (s for s in SIZES if s <= max(1, at_most)):
        members = [
            trial.model_copy(update={"train": trial.train.model_copy(update={"seed": seed})})
            for seed in range(size)
        ]
        speed = None
        with contextlib.suppress(torch.OutOfMemoryError):
            speed = training_speed(StackPlan(tuple(members)), images, device, precision)
        if speed is None:
            torch.cuda.empty_cache()
            break
        worth_it = _gains(speed, speeds.values())
        speeds[size] = speed
        too_long = time.perf_counter() - started_s > _TRY_S
        too_long |= size == 1 and trial.train.batch_size / speed > _LARGE_STEP_S
        if not worth_it or (on_cpu and too_long):
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


def training_speed(
    plan: StackPlan, images: ImageSet, device: torch.device, precision: Precision = "auto"
) -> float:
    """Training images a second of all members together, from a few real steps after warm-up."""
    stack = Stack(plan, images, device, precision=precision)
    stack.train_epoch(1, max_steps=_WARM_UP_STEPS[device.type])
    speeds, batch_size = [], plan.shared.train.batch_size
    for epoch, steps in enumerate(_STEPS[device.type], 2):
        started_s = time.perf_counter()
        stack.train_epoch(epoch, max_steps=steps)  # reads its sums back: all has been computed
        seconds = time.perf_counter() - started_s
        trained = min(min(steps, stack.steps_per_epoch) * batch_size, stack.images_per_epoch)
        speeds.append(plan.size * trained / seconds)
    return max(speeds)


def fit_or_halve(
    plan: StackPlan,
    run: Callable[[StackPlan], bool],
    release: Callable[[], None],
    send: Callable[[StackReport], None],
) -> None:
    """Train the plan; where memory runs out, train its halves one after the other.

    Nothing is lost: each half goes on from its members' checkpoints. Where a single model does
    not fit, it and those that still wait, which are no smaller, end as `oom`: `send` is given
    their report. `run` trains a part and returns whether it came to its end; `release` gives back
    memory that a failed attempt holds.
    """
    waiting = [plan]
    while waiting:
        part = waiting.pop(0)
        try:
            if not run(part):
                return
            continue
        except torch.OutOfMemoryError as error:
            if part.size == 1:
                why = traceback.format_exception_only(error)[0].splitlines()[0]
                ends = tuple(
                    TrialOutcome(trial_id=key, stack_id=plan.stack_id, status=Status.OOM, error=why)
                    for key in [m.trial_id for left in (part, *waiting) for m in left.members]
                )
                send(StackReport(epoch=0, outcomes=ends, traceback=traceback.format_exc()))
                return
        release()  # only now: the error's traceback held what the attempt had made
        middle = (part.size + 1) // 2
        logger.warning("out of memory with %d members; trying %d", part.size, middle)
        waiting[:0] = [StackPlan(part.members[:middle]), StackPlan(part.members[middle:])]
