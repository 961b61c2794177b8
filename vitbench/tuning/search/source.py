"""Adapts a source of stacks (a list, or a search) to Tune's Searcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ray.tune.search import Searcher

from vitbench.plan import StackPlan
from vitbench.records.types import EpochRow, TrialOutcome
from vitbench.tuning.events import StackEnded, StackEvent, Trained


class StackSource(Protocol):
    """Where the next stack comes from: a list, or a search that learns from what it is told."""

    def next(self) -> StackPlan | None:
        """Return the next stack to train, or None when there is none left."""

    @property
    def total(self) -> int:
        """Stacks that there will be in all."""

    def reported(self, stack_id: str, epoch: int, rows: Sequence[EpochRow]) -> None:
        """The stack has trained an epoch."""

    def ended(self, stack_id: str, outcomes: Sequence[TrialOutcome]) -> None:
        """The stack has ended, each member with its outcome."""


class ListSource:
    """The stacks of a grid, in order."""

    def __init__(self, plans: Sequence[StackPlan]) -> None:
        self.plans = list(plans)
        self._waiting = list(plans)

    @property
    def total(self) -> int:
        """Stacks of the list."""
        return len(self.plans)

    def next(self) -> StackPlan | None:
        """Return the next stack, or None after the last."""
        return self._waiting.pop(0) if self._waiting else None

    def reported(self, stack_id: str, epoch: int, rows: Sequence[EpochRow]) -> None:
        """Nothing to learn from: a grid does not change."""

    def ended(self, stack_id: str, outcomes: Sequence[TrialOutcome]) -> None:
        """Nothing to learn from."""


class SourceObserver:
    """Lets the source of the stacks learn from how they get on."""

    def __init__(self, source: StackSource) -> None:
        self._source = source

    def observe(self, event: StackEvent) -> None:
        """Hand on epochs one by one, and the end of the whole stack."""
        match event:
            case Trained(plan, report):
                for epoch, rows in report.by_epoch().items():
                    self._source.reported(plan.stack_id, epoch, rows)
            case StackEnded(plan, outcomes):
                self._source.ended(plan.stack_id, outcomes)


class PlanSearcher(Searcher):
    """Tune's view of a StackSource: one Ray trial is one stack.

    Args:
        source: of the stacks.
        slots: stacks that may run side by side now; asked again for every stack.
        cpus: that one worker of a stack is given.
    """

    def __init__(
        self, source: StackSource, slots: Callable[[], int], cpus: Callable[[StackPlan], float]
    ) -> None:
        super().__init__(metric=None, mode=None)
        self._source = source
        self._slots = slots
        self._cpus = cpus
        self._live: set[str] = set()
        self._again: list[StackPlan] = []
        self._finished = False
        self.broken: OSError | None = None  # the study cannot be written any more

    def finish(self) -> None:
        """Hand out no new stacks."""
        self._finished = True

    def hand_out_again(self, plan: StackPlan) -> None:
        """Hand out a stack that crashed before any new one; it goes on from its checkpoint."""
        self._again.append(plan)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Accept Tune's settings; the source already knows what to optimise."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """Return the next stack as a Tune configuration; None while there is none to start.

        Tune asks no more once it was told FINISHED, so that has to wait for the last stack.
        """
        if len(self._live) >= self._slots():
            return None
        try:
            plan = self._next()
        except OSError as error:  # Tune wraps it
            self.broken = error
            raise
        if plan is None:
            self._finished = True
            return None if self._live else Searcher.FINISHED
        self._live.add(trial_id)
        return {"stack_id": plan.stack_id, "plan": plan.to_json(), "cpus": self._cpus(plan)}

    def _next(self) -> StackPlan | None:
        if self._again:
            return self._again.pop(0)
        return None if self._finished else self._source.next()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Free the slot; an observer tells the source, after the ledger knows."""
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: a resumed sweep is a new Tuner fed from the ledger."""
        with open(checkpoint_path, "wb"):
            pass

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing (see save)."""
