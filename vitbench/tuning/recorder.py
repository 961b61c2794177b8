"""Turns what Tune says of its trials into events; the ledger is told first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune

from vitbench.plan import StackPlan
from vitbench.records.types import StackReport, Status, TrialOutcome
from vitbench.tuning.events import (
    Crashed,
    MembersEnded,
    Round,
    StackEnded,
    StackEvent,
    StackObserver,
    Started,
    Trained,
    Warned,
)


class Recorder(tune.Callback):
    """Tells observers what happens to stacks, one after another in Tune's own loop.

    Args:
        ledger: writes down what happens, before anybody acts on it.
        observers: told after the ledger, in this order.
        hand_out_again: trains a stack once more, from its last checkpoint.
        over: is told of a stack that Tune will start again though all its members have their end.
    """

    def __init__(
        self,
        ledger: StackObserver,
        observers: Sequence[StackObserver],
        hand_out_again: Callable[[StackPlan], None],
        over: Callable[[str], None],
    ) -> None:
        self._observers = [ledger, *observers]
        self._hand_out_again = hand_out_again
        self._over = over
        self._handed_out_again: Counter[str] = Counter()  # by stack
        self._plans: dict[str, StackPlan] = {}
        self._warnings: set[str] = set()  # those told
        self._ended: dict[str, dict[str, TrialOutcome]] = {}  # by stack and trial
        self.broken: OSError | None = None  # what cannot be written any more

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; locks and handles stay here."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Before anything else in each turn of Tune's loop."""
        self._tell(Round())

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A stack has been given to a worker."""
        plan = self._plan_of(trial)
        self._ended.setdefault(plan.stack_id, {})
        if not self._has_ended(plan):
            self._tell(Started(plan))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A worker reported, and waits until everybody knows."""
        plan, report = self._plan_of(trial), StackReport.from_json(result)
        self._tell(Trained(plan, report))
        for text in report.warnings:
            if text not in self._warnings:
                self._warnings.add(text)
                self._tell(Warned(plan, text))
        if report.traceback:
            first = report.outcomes[0]
            self._tell(Crashed(plan, first.error or "", report.traceback, first.status))
        if report.outcomes:
            self._members_ended(plan, report.outcomes)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A stack crashed and starts again from its last checkpoint.

        Its worker may have died after it had reported all ends: Tune starts the stack all the same.
        """
        plan, traceback = self._plan_of(trial), _traceback(trial)
        if self._has_ended(plan):
            self._over(plan.stack_id)
        else:
            self._tell(Crashed(plan, _last_line(traceback), traceback, None))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A stack crashed, and Tune does not try again.

        That it has tried often enough is one reason. The other: the process of a stack that has
        ended died while it took over this one. Tune drops such a stack at its first failure, so it
        is handed out again here.
        """
        plan = self._plan_of(trial)
        if self._has_ended(plan):
            return
        retries_left = trial.num_failures <= trial.max_failures
        if retries_left and self._handed_out_again[plan.stack_id] < trial.max_failures:
            self._handed_out_again[plan.stack_id] += 1
            self.on_trial_recover(iteration, trials, trial)
            self._hand_out_again(plan)
            return
        if plan.stack_id not in self._ended:  # its worker died before Tune called it started
            self.on_trial_start(iteration, trials, trial)
        traceback, status = _traceback(trial), _status(trial)
        error = _last_line(traceback)
        self._tell(Crashed(plan, error, traceback, status))
        self._members_ended(
            plan,
            tuple(
                TrialOutcome(
                    trial_id=member.trial_id, stack_id=plan.stack_id, status=status, error=error
                )
                for member in plan.members
                if member.trial_id not in self._ended[plan.stack_id]
            ),
        )

    def _members_ended(self, plan: StackPlan, outcomes: tuple[TrialOutcome, ...]) -> None:
        self._tell(MembersEnded(plan, outcomes))
        ended = self._ended[plan.stack_id]
        ended.update((outcome.trial_id, outcome) for outcome in outcomes)
        if self._has_ended(plan):
            self._tell(StackEnded(plan, tuple(ended.values())))

    def _has_ended(self, plan: StackPlan) -> bool:
        return len(self._ended.get(plan.stack_id, ())) == plan.size

    def _tell(self, event: StackEvent) -> None:
        if self.broken is not None:
            raise self.broken
        for observer in self._observers:
            try:
                observer.observe(event)
            except OSError as error:  # Tune would say so in pages, and go on
                self.broken = error
                raise

    def _plan_of(self, trial: Any) -> StackPlan:
        stack_id = trial.config["stack_id"]
        if stack_id not in self._plans:
            self._plans[stack_id] = StackPlan.from_json(trial.config["plan"])
        return self._plans[stack_id]


def _traceback(trial: Any) -> str:
    """What Tune wrote down of a trial's last error."""
    written = Path(trial.local_path) / "error.txt"
    return written.read_text(encoding="utf-8") if written.is_file() else "no error was recorded"


def _last_line(text: str) -> str:
    """The line of a traceback that names the cause."""
    return [line.strip() for line in text.splitlines() if line.strip()][-1]


def _status(trial: Any) -> Status:
    """`oom` where Ray's memory monitor ended the worker, else `crashed`.

    A GPU's or torch's memory error does not come here: the worker reports it.
    """
    # Tune's own reader looks into the storage, where the file comes later.
    file = trial.pickled_error_file
    error = None if file is None else ray.cloudpickle.loads(Path(file).read_bytes())
    if isinstance(error, ray.exceptions.RayTaskError):
        error = error.as_instanceof_cause()
    return Status.OOM if isinstance(error, ray.exceptions.OutOfMemoryError) else Status.CRASHED
