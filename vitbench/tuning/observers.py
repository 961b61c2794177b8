"""Observers of a running sweep that write, show and tidy up; the others stand with their topic."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vitbench.exports.tensorboard import TensorBoard
from vitbench.plan import StackPlan, stack_flops
from vitbench.records.files import write_atomically
from vitbench.records.ledger import Ledger
from vitbench.storage.retention import Retention
from vitbench.terminal.progress import Tracker
from vitbench.tuning.events import (
    Crashed,
    MembersEnded,
    StackEnded,
    StackEvent,
    Started,
    Trained,
)


class LedgerObserver:
    """Writes down plans, epochs, retries and outcomes.

    Args:
        ledger: of the sweep.
        planned: ids of the stacks that it knows already.
    """

    def __init__(self, ledger: Ledger, planned: Iterable[str] = ()) -> None:
        self._ledger = ledger
        self._planned = set(planned)

    def observe(self, event: StackEvent) -> None:
        """Append the event's lines."""
        match event:
            case Started(plan) if plan.stack_id not in self._planned:
                self._planned.add(plan.stack_id)
                self._ledger.extend("trial", planned_rows(plan))
            case Trained(_, report):
                self._ledger.extend("epoch", (row.to_json() for row in report.rows))
            case Crashed(plan, error, _, None):
                self._ledger.append("event", event="retry", stack_id=plan.stack_id, error=error)
            case MembersEnded(_, outcomes):
                self._ledger.extend("outcome", (outcome.to_json() for outcome in outcomes))


class ErrorLog:
    """Keeps the last traceback of each stack that crashed, in `<folder>/<stack id>.txt`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def observe(self, event: StackEvent) -> None:
        """Write the traceback of a crash."""
        if isinstance(event, Crashed):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._folder / f"{event.plan.stack_id}.txt", event.traceback)


class RetentionObserver:
    """Removes checkpoints beyond the best few, and says in the ledger whose are gone."""

    def __init__(self, retention: Retention, ledger: Ledger) -> None:
        self._retention = retention
        self._ledger = ledger

    def observe(self, event: StackEvent) -> None:
        """Make place after each end."""
        if isinstance(event, MembersEnded):
            for trial_id in self._retention.drop(event.outcomes):
                self._ledger.append("outcome", trial_id=trial_id, checkpoint=None)


class ProgressObserver:
    """Shows how stacks get on.

    Args:
        tracker: keeps the view.
        label: a stack's name for people.
    """

    def __init__(self, tracker: Tracker, label: Callable[[StackPlan], str]) -> None:
        self._tracker = tracker
        self._label = label

    def observe(self, event: StackEvent) -> None:
        """Bring the view up to date."""
        match event:
            case Started(plan):
                self._tracker.started(plan, self._label(plan), stack_flops(plan))
            case Trained(plan, report) if report.rows:
                self._tracker.reported(plan.stack_id, report)
            case Crashed(plan, error, _, None):
                text = f"crashed, going on from the last checkpoint ({error})"
                self._tracker.shown.say(f"{self._label(plan)}: {text}")
            case Crashed(plan, error, _, status):
                self._tracker.shown.say(f"{self._label(plan)}: {status}: {error}")
            case StackEnded(plan, outcomes):
                self._tracker.ended(plan.stack_id, [outcome.status for outcome in outcomes])


class TensorBoardObserver:
    """Hands starts, epochs and ends on to the live export."""

    def __init__(self, tensorboard: TensorBoard) -> None:
        self._tensorboard = tensorboard

    def observe(self, event: StackEvent) -> None:
        """Write what there is to write; it never fails."""
        match event:
            case Started(plan):
                self._tensorboard.started(plan)
            case Trained(_, report):
                self._tensorboard.epochs(report.rows)
            case MembersEnded(plan, outcomes):
                self._tensorboard.ended(plan, outcomes)


def planned_rows(stack: StackPlan) -> list[dict[str, Any]]:
    """Ledger rows that say what a stack's members are, before it starts."""
    return [
        {
            "trial_id": member.trial_id,
            "stack_id": stack.stack_id,
            "config": member.model_dump(mode="json"),
        }
        for member in stack.members
    ]
