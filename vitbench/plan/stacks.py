"""How many stacks run side by side, and how trials are grouped into them. Needs no Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vitbench.config import Resources, Sweep
from vitbench.hardware import cpu_count, local_gpu_count
from vitbench.plan import StackPlan, TrialConfig, pack

# What `stack: auto` is where nothing was measured. On a GPU a stack costs little more than one
# model until the device is full; on a CPU one process per core is the fastest there is and stacking
# was measured to gain nothing (benchmarks/RESULTS.md), so there stacks hold one member.
AUTO_MEMBERS_GPU = 16
AUTO_MEMBERS_CPU = 1


def stacks_of(
    sweep: Sweep,
    trials: Sequence[TrialConfig],
    *,
    slots: int,
    on_gpu: bool,
    auto: Callable[[TrialConfig], int] | None = None,
) -> list[StackPlan]:
    """Group trials into stacks the way the hardware likes them (see `stack:` in the sweep).

    Args:
        sweep: says how many members at most.
        trials: to group.
        slots: stacks that run side by side.
        on_gpu: whether stacks train on GPUs.
        auto: members at most where the sweep leaves that to the hardware (tuning.stack_size).
    """
    if sweep.stack != "auto":
        return pack(trials, max_members=sweep.stack, slots=slots)
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
        fits = int(cpus // resources.cpus)
        workers += min(fits, int(gpus // gpus_each)) if gpus_each else fits
    return workers // resources.workers


def local_slots(resources: Resources) -> tuple[int, bool]:
    """Stacks that this machine holds at once (at least 1), and whether they use a GPU."""
    gpus = local_gpu_count()
    gpus_each = gpus_per_worker(resources, gpus)
    slots = slots_of(resources, [(cpu_count(), gpus)], gpus_each=gpus_each)
    return max(1, slots), gpus_each > 0
