"""Feeds Tune one stack at a time. Where stacks come from is the source's business."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ray.tune.search import Searcher

from vitbench.plan import StackPlan


class StackSource(Protocol):
    """Where the next stack comes from: a list, or a search that learns from what it is told."""

    def next(self) -> StackPlan | None:
        """Return the next stack to train, or None when there is none left."""

    def ended(self, stack_id: str, *, crashed: bool) -> None:
        """The stack has ended for good; its rows are in the record."""


class ListSource:
    """The stacks of a grid, in order."""

    def __init__(self, plans: Sequence[StackPlan]) -> None:
        self._waiting = list(plans)

    def next(self) -> StackPlan | None:
        """Return the next stack, or None after the last."""
        return self._waiting.pop(0) if self._waiting else None

    def ended(self, stack_id: str, *, crashed: bool) -> None:
        """Nothing to learn from: a grid does not change."""


class PlanSearcher(Searcher):  # type: ignore[misc]  # Ray has no types
    """Tune's view of a StackSource: one Ray trial is one stack."""

    def __init__(self, source: StackSource) -> None:
        super().__init__(metric=None, mode=None)
        self._source = source
        self._stack_ids: dict[str, str] = {}
        self._finished = False

    def finish(self) -> None:
        """Hand out no more stacks."""
        self._finished = True

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Accept Tune's settings; the source already knows what to optimise."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """Return the next stack as a Tune configuration."""
        plan = None if self._finished else self._source.next()
        if plan is None:
            return Searcher.FINISHED
        self._stack_ids[trial_id] = plan.stack_id
        return {"stack_id": plan.stack_id, "plan": plan.to_json()}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the source that a stack has ended."""
        stack_id = self._stack_ids.pop(trial_id, None)
        if stack_id is not None:
            self._source.ended(stack_id, crashed=error)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: a resumed sweep is a new Tuner fed from the ledger."""
        with open(checkpoint_path, "wb"):
            pass

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing (see save)."""
