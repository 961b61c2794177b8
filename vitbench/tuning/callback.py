"""The driver's side of a running sweep: every report goes to the ledger, then to the screen."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from ray import tune

from vitbench.plan import StackPlan, stack_flops
from vitbench.records.ledger import Ledger
from vitbench.tuning.control import INTERRUPTED, Control
from vitbench.tuning.progress import Tracker
from vitbench.tuning.searcher import PlanSearcher

# A sweep whose stacks all die of the same cause says so instead of burning the night.
_SAME_CRASHES_TO_GIVE_UP = 3


class Interrupt:
    """Ctrl-C or SIGTERM: once ends the stacks after their epoch, twice ends everything at once.

    Use as a context manager in the main thread; the handlers from before come back at its end.
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        self._on_first = on_first
        self._before: dict[int, Any] = {}
        self.requested = False

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._on_first()


class Recorder(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Writes what stacks report to the ledger and keeps the progress view current."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        tracker: Tracker,
        control: Control,
        searcher: PlanSearcher,
        label: Callable[[StackPlan], str],
        errors_dir: Path,
    ) -> None:
        self._ledger = ledger
        self._tracker = tracker
        self._control = control
        self._searcher = searcher
        self._label = label
        self._errors_dir = errors_dir
        self._plans: dict[str, StackPlan] = {}
        self._open_members: dict[str, set[str]] = {}
        self._end_requested: str | None = None
        self._told_to_end = False
        self._last_crash = ""
        self._same_crashes = 0
        self.gave_up: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; locks and handles stay here."""
        return {}

    def request_end(self, reason: str) -> None:
        """Ask every stack to end after its epoch; safe to call from a signal handler."""
        self._end_requested = self._end_requested or reason

    # Tune calls these on the driver, in its own loop.

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Pass a request to end on to the running stacks, outside the signal handler."""
        if self._end_requested and not self._told_to_end:
            self._told_to_end = True
            self._searcher.finish()
            self._control.end(self._end_requested)
            if self._end_requested == INTERRUPTED:
                self._tracker.shown.say(
                    "Stopping: running stacks finish their epoch and write a checkpoint "
                    "(press Ctrl-C again to stop at once)."
                )

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A stack has been given to a worker."""
        plan = StackPlan.from_json(trial.config["plan"])
        self._plans[plan.stack_id] = plan
        self._open_members[plan.stack_id] = {member.trial_id for member in plan.members}
        self._tracker.started(plan, self._label(plan), stack_flops(plan))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Rows have arrived: record them first, show them second."""
        stack_id = trial.config["stack_id"]
        self._ledger.extend("epoch", result["rows"])
        outcomes = result.get("outcomes", [])
        self._ledger.extend("outcome", outcomes)
        self._open_members[stack_id] -= {row["trial_id"] for row in outcomes}
        if result["rows"]:
            self._tracker.reported(stack_id, result)
        if outcomes:
            self._same_crashes = 0
            self._tracker.ended(stack_id, [row["status"] for row in outcomes])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A stack crashed and starts again from its last checkpoint."""
        reason = self._keep_error(trial)
        self._ledger.append("event", event="retry", stack_id=trial.config["stack_id"], error=reason)
        self._tracker.shown.say(
            f"{self._label(self._plan_of(trial))}: crashed, going on from the last checkpoint "
            f"({reason})"
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A stack crashed for the last time."""
        plan = self._plan_of(trial)
        reason = self._keep_error(trial)
        status = "oom" if "OutOfMemoryError" in reason else "crashed"
        members = self._open_members.get(plan.stack_id, set())
        rows = [
            {"trial_id": m.trial_id, "stack_id": plan.stack_id, "status": status, "error": reason}
            for m in plan.members
            if m.trial_id in members
        ]
        self._ledger.extend("outcome", rows)
        self._tracker.shown.say(f"{self._label(plan)}: {status}: {reason}")
        self._tracker.ended(plan.stack_id, [status] * len(rows))
        self._same_crashes = self._same_crashes + 1 if reason == self._last_crash else 1
        self._last_crash = reason
        if self._same_crashes >= _SAME_CRASHES_TO_GIVE_UP and not self._end_requested:
            self.gave_up = reason
            self.request_end(INTERRUPTED)

    def _plan_of(self, trial: Any) -> StackPlan:
        return self._plans.get(trial.config["stack_id"]) or StackPlan.from_json(
            trial.config["plan"]
        )

    def _keep_error(self, trial: Any) -> str:
        """Write the whole traceback beside the results; return the line that names the cause."""
        error = trial.get_error()
        text = "".join(traceback.format_exception(error)) if error else "no error was recorded"
        self._errors_dir.mkdir(parents=True, exist_ok=True)
        path = self._errors_dir / f"{trial.config['stack_id']}.txt"
        with path.open("a", encoding="utf-8") as file:
            file.write(text.rstrip() + "\n\n")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else "unknown"
