"""Whether a sweep can fit at all: the least that it needs of memory and disk, before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vitbench.config import Checkpoints, TrialConfig
from vitbench.plan.stacks import StackPlan

_BYTES = 4  # of a parameter in float32, in which optimizers and checkpoints keep it
_KEPT = 2  # of a model: its best and its last weights

Parameters = Callable[[TrialConfig], int]


def memory_lacks(
    plans: Sequence[StackPlan], parameters: Parameters, have_gib: float, slots: int, *, every: bool
) -> str | None:
    """Why stacks cannot be trained in so much memory, in words; None where they perhaps can.

    Counted are weights, gradients and the optimizer's moments, without activations and images.

    Args:
        plans: the stacks of the sweep, or some that it may have.
        parameters: counts those of a model.
        have_gib: memory of the machine, or of one GPU.
        slots: stacks side by side in it.
        every: whether each of them is trained: then the largest must fit, too.
    """

    def gib(plan: StackPlan) -> float:
        floats = 3 if plan.shared.train.optimizer == "sgd" else 4
        return sum(map(parameters, plan.members)) * floats * _BYTES / 2**30

    sizes = sorted(map(gib, plans))
    together = sum(sizes[:slots])  # whichever meet, they need no less
    if every and sizes[-1] > have_gib:
        largest = max(plans, key=gib)
        one, size = largest.members[0], largest.size
        width, build = one.model.width, one.model.build
        key = f"model.width={width}" if build is None else f"model.build={build}"
        return f"{key}: " + _memory(
            f"{parameters(one):,} parameters" + (f" by {size} models" if size > 1 else ""),
            sizes[-1],
        )
    if together > have_gib:
        count = min(slots, len(sizes))
        who = f"even the {count} smallest stacks side by side" if count > 1 else "even the smallest"
        return "model: " + _memory(who, together)
    return None


def _memory(who: str, gib: float) -> str:
    return f"weights, gradients and moments of {who} alone take {gib:,.1f} GiB"


def disk_gib(
    trials: Sequence[TrialConfig], parameters: Parameters, kept: Checkpoints, most: int
) -> float:
    """The least that the checkpoints of so many of these models take at the end."""
    sizes = sorted(map(parameters, trials))[: min(most, kept.keep or most)]
    return _KEPT * _BYTES * sum(sizes) / 2**30
