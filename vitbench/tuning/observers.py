"""Observers of a running sweep that write, show and tidy up; the others stand with their topic."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vitbench.errors import UserError
from vitbench.exports.tensorboard import TensorBoard
from vitbench.plan import StackPlan, stack_flops
from vitbench.records import tables
from vitbench.records.files import write_atomically
from vitbench.records.ledger import Ledger
from vitbench.records.types import TrialOutcome
from vitbench.storage.checkpoints import Checkpoints
from vitbench.terminal.progress import Progress
from vitbench.tuning.events import (
    Crashed,
    MembersEnded,
    Round,
    StackEnded,
    StackEvent,
    Started,
    Trained,
    Warned,
)

logger = logging.getLogger(__name__)

# Tables are written this often at most while a sweep runs, and less often where they are large:
# for each second that they take, this many pass.
_TABLES_EVERY_S, _PER_SECOND = 60.0, 100.0


class LedgerObserver:
    """Writes down plans with their threads, epochs, retries, warnings and outcomes."""

    def __init__(self, ledger: Ledger, threads: Callable[[StackPlan], int]) -> None:
        self._ledger = ledger
        self._threads = threads
        self._planned: set[str] = set()

    def plan(self, plan: StackPlan) -> None:
        """Write down a stack's members, once."""
        if plan.stack_id not in self._planned:
            self._planned.add(plan.stack_id)
            self._ledger.extend("trial", planned_rows(plan, self._threads(plan)))

    def observe(self, event: StackEvent) -> None:
        """Append the event's lines."""
        match event:
            case Started(plan):
                self.plan(plan)
            case Trained(_, report):
                self._ledger.extend("epoch", (row.to_json() for row in report.rows))
            case Warned(plan, text):
                self._ledger.append("event", event="warning", stack_id=plan.stack_id, text=text)
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


class TablesObserver:
    """Writes the tables while the sweep runs, for a hundredth of its time at most."""

    def __init__(self, results_dir: Path) -> None:
        self._results_dir = results_dir
        self._growing = tables.Growing(results_dir)
        self._due_s = time.monotonic() + _TABLES_EVERY_S
        self._is_new = False

    def observe(self, event: StackEvent) -> None:
        """Note ends of models; write when it is time, between two looks at the workers."""
        match event:
            case MembersEnded():
                self._is_new = True
            case Round() if self._is_new and time.monotonic() >= self._due_s:
                started_s = time.monotonic()
                try:
                    tables.write(self._results_dir, self._growing)
                except (OSError, UserError) as error:  # the end of the sweep will say it again
                    logger.warning("the tables could not be written yet: %s", error)
                now_s = time.monotonic()
                self._due_s = now_s + max(_TABLES_EVERY_S, _PER_SECOND * (now_s - started_s))
                self._is_new = False


class Retention:
    """Keeps the checkpoints of the best `keep` ended trials; the ledger says whose are gone."""

    def __init__(
        self, checkpoints: Checkpoints, keep: int, before: Iterable[TrialOutcome], ledger: Ledger
    ) -> None:
        self._checkpoints = checkpoints
        self._keep = keep
        self._ledger = ledger
        self._losses: dict[str, float] = {}  # of trials whose checkpoints are there
        self._take(before)

    def observe(self, event: StackEvent) -> None:
        """Make place after each end."""
        if isinstance(event, MembersEnded):
            self._take(event.outcomes)
            while len(self._losses) > self._keep:
                worst = max(self._losses, key=lambda trial_id: self._losses[trial_id])
                del self._losses[worst]
                self._checkpoints.remove(worst)
                self._ledger.append("outcome", trial_id=worst, checkpoint=None)

    def _take(self, ended: Iterable[TrialOutcome]) -> None:
        for outcome in ended:
            if outcome.status.is_done and outcome.checkpoint:
                loss = math.inf if outcome.best_val_loss is None else outcome.best_val_loss
                self._losses[outcome.trial_id] = loss if math.isfinite(loss) else math.inf


class ProgressObserver:
    """Shows how stacks get on; `label` gives a stack's name for people."""

    def __init__(self, shown: Progress, label: Callable[[StackPlan], str]) -> None:
        self._shown = shown
        self._label = label

    def observe(self, event: StackEvent) -> None:
        """Bring the view up to date."""
        match event:
            case Started(plan):
                self._shown.started(plan, self._label(plan), stack_flops(plan))
            case Trained(plan, report) if report.rows:
                self._shown.reported(plan.stack_id, report)
            case Warned(plan, text):
                self._shown.say(f"warning: {self._label(plan)}: {text}")
            case Crashed(plan, error, _, None):
                text = f"crashed, going on from the last checkpoint ({error})"
                self._shown.say(f"{self._label(plan)}: {text}")
            case Crashed(plan, error, _, status):
                self._shown.say(f"{self._label(plan)}: {status}: {error}")
            case StackEnded(plan, outcomes):
                self._shown.ended(plan.stack_id, [outcome.status for outcome in outcomes])


class TensorBoardObserver:
    """Hands starts, epochs and ends on to the live export, which never fails."""

    def __init__(self, tensorboard: TensorBoard) -> None:
        self._tensorboard = tensorboard

    def observe(self, event: StackEvent) -> None:
        """Write what there is to write."""
        match event:
            case Started(plan):
                self._tensorboard.started(plan)
            case Trained(_, report):
                self._tensorboard.epochs(report.rows)
            case MembersEnded(plan, outcomes):
                self._tensorboard.ended(plan, outcomes)


def planned_rows(stack: StackPlan, threads: int) -> list[dict[str, Any]]:
    """Ledger rows that say what a stack's members are, before it starts."""
    return [
        {
            "trial_id": member.trial_id,
            "stack_id": stack.stack_id,
            "config": member.model_dump(mode="json"),
            "threads": threads,
        }
        for member in stack.members
    ]
