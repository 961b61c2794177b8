"""CPUs of each stack: those of the sweep file, or as `resources.cpus: auto` planned them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitbench.config import Resources
from vitbench.plan import StackPlan
from vitbench.plan.threads import parallel_share, plan_threads, side_by_side, worth

PLANNED = "threads"  # in the ledger's lines of planned trials


class StackCpus:
    """What one worker of each stack is given; with `auto` also how many threads it computes on.

    A stack keeps what was planned for it, also in later runs: with other threads its numbers would
    differ by rounding. On GPUs, and with several workers, `auto` is 1.

    Args:
        nodes: cores of each node that trains.
        before: threads of trials that were planned in runs before, by trial id.
        on_cpus: whether a stack's one worker computes on CPUs.
    """

    def __init__(
        self,
        resources: Resources,
        nodes: Sequence[int],
        before: Mapping[str, int],
        *,
        on_cpus: bool,
    ) -> None:
        self._fixed = None if resources.cpus == "auto" and on_cpus else resources.cpus_at_least
        self._nodes = nodes
        self._planned = dict(before)
        self._most = 1  # of stacks that no plan names: a search makes them as it goes

    def plan(self, plans: Sequence[StackPlan]) -> None:
        """Plan for the stacks of a grid, in the order in which they start."""
        if self._fixed is None and plans:
            for plan, threads in zip(plans, plan_threads(plans, self._nodes), strict=True):
                self._planned.update(dict.fromkeys((m.trial_id for m in plan.members), threads))

    def plan_any(self, stacks: int, before: int | None = None) -> int | None:
        """Plan for stacks that are not known yet, so many side by side at most.

        Which of a search's suggestions are the last is not known before the others end, so all may
        have the same threads at most, which a resume keeps (`before`). Returned are these, None
        where the sweep file names them.
        """
        if self._fixed is not None:
            return None
        self._most = before or side_by_side(self._nodes, stacks)
        return self._most

    def __call__(self, plan: StackPlan) -> float:
        """CPUs of a stack's worker; never more than the largest node has."""
        if self._fixed is not None:
            return self._fixed
        return min(self._asked(plan), max(self._nodes))

    def too_many(self, plans: Sequence[StackPlan]) -> list[StackPlan]:
        """Stacks that were planned on a larger machine: their numbers will differ by rounding."""
        return [] if self._fixed else [p for p in plans if self._asked(p) > max(self._nodes)]

    def _asked(self, plan: StackPlan) -> int:
        """A stack that was halved or lost members has threads as its members have."""
        known = self._planned.get(plan.members[0].trial_id)
        return worth(self._most, parallel_share(plan)) if known is None else known


def threads_of(cpus: float) -> int:
    """Threads of a worker with so many CPUs."""
    return max(1, int(cpus))
