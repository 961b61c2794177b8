"""The driver's side of a running sweep: every report goes to the ledger, then to the screen."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType
from typing import Any

from ray import tune

from vitbench.exports.tensorboard import TensorBoard
from vitbench.plan import StackPlan, stack_flops
from vitbench.records.history import DONE
from vitbench.records.ledger import Ledger
from vitbench.storage.retention import CheckpointKeeper
from vitbench.terminal.progress import Tracker
from vitbench.tuning.budget import BudgetMeter
from vitbench.tuning.search.source import PlanSearcher, StackSource
from vitbench.tuning.stop import BUDGET, INTERRUPTED, Control

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


class Recorder(tune.Callback):
    """Writes what stacks report to the ledger and keeps the progress view current."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        tracker: Tracker,
        control: Control,
        searcher: PlanSearcher,
        source: StackSource,
        budget: BudgetMeter,
        keeper: CheckpointKeeper,
        label: Callable[[StackPlan], str],
        errors_dir: Path,
        planned: Collection[str],
        tensorboard: TensorBoard | None = None,
    ) -> None:
        self._ledger = ledger
        self._tracker = tracker
        self._control = control
        self._searcher = searcher
        self._source = source
        self._budget = budget
        self._keeper = keeper
        self._label = label
        self._errors_dir = errors_dir
        self._planned = planned  # stacks that the ledger knows already
        self._tensorboard = tensorboard
        self._plans: dict[str, StackPlan] = {}
        self._outcomes: dict[str, list[dict[str, Any]]] = {}
        self._end_requested: str | None = None
        self._told_to_end = False
        self._last_crash = ""
        self._same_crashes = 0
        self.gave_up: str | None = None
        self.spent: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; locks and handles stay here."""
        return {}

    def request_end(self, reason: str) -> None:
        """Ask every stack to end after its epoch; safe to call from a signal handler."""
        self._end_requested = self._end_requested or reason

    # Tune calls these on the driver, in its own loop.

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Pass a request to end on to the running stacks, outside the signal handler."""
        if self._end_requested is None and (spent := self._budget.exceeded()):
            self.spent = spent
            self._end_requested = BUDGET
            self._tracker.shown.say(f"{spent}: running stacks end after their epoch.")
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
        plan = self._plan_of(trial)
        if plan.stack_id not in self._outcomes:
            self._outcomes[plan.stack_id] = []
            if plan.stack_id not in self._planned:
                self._ledger.extend("trial", planned_rows(plan))
        if self._tensorboard is not None:
            self._tensorboard.started(plan)
        self._tracker.started(plan, self._label(plan), stack_flops(plan))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Rows have arrived: record them first, tell the search second, show them third."""
        stack_id = trial.config["stack_id"]
        rows = result["rows"]
        self._ledger.extend("epoch", rows)
        for epoch in sorted({row["epoch"] for row in rows}):
            of_epoch = [row for row in rows if row["epoch"] == epoch]
            self._budget.epoch(len(of_epoch), of_epoch[0]["epoch_s"])
            self._source.reported(stack_id, epoch, of_epoch)
        if self._tensorboard is not None:
            self._tensorboard.epochs(self._plan_of(trial), rows)
        if rows:
            self._tracker.reported(stack_id, result)
        if result.get("outcomes"):
            self._same_crashes = 0
            self._record(self._plan_of(trial), result["outcomes"])

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
        if plan.stack_id not in self._outcomes:  # its worker died before Tune called it started
            self.on_trial_start(iteration, trials, trial)
        reason = self._keep_error(trial)
        status = "oom" if "OutOfMemoryError" in reason else "crashed"
        ended = {row["trial_id"] for row in self._outcomes[plan.stack_id]}
        rows = [
            {"trial_id": m.trial_id, "stack_id": plan.stack_id, "status": status, "error": reason}
            for m in plan.members
            if m.trial_id not in ended
        ]
        self._tracker.shown.say(f"{self._label(plan)}: {status}: {reason}")
        self._record(plan, rows)
        self._same_crashes = self._same_crashes + 1 if reason == self._last_crash else 1
        self._last_crash = reason
        if self._same_crashes >= _SAME_CRASHES_TO_GIVE_UP and not self._end_requested:
            self.gave_up = reason
            self.request_end(INTERRUPTED)

    def _record(self, plan: StackPlan, outcomes: list[dict[str, Any]]) -> None:
        """Write outcomes down; once every member has one, the stack is over."""
        self._ledger.extend("outcome", outcomes)
        if self._tensorboard is not None:
            self._tensorboard.ended(plan, outcomes)
        self._budget.trials_done(sum(row["status"] in DONE for row in outcomes))
        for row in self._keeper.drop(outcomes):
            self._ledger.append("outcome", **row)
        so_far = self._outcomes[plan.stack_id]
        so_far.extend(outcomes)
        if len(so_far) >= plan.size:
            self._source.ended(plan.stack_id, so_far)
            self._tracker.ended(plan.stack_id, [row["status"] for row in so_far])

    def _plan_of(self, trial: Any) -> StackPlan:
        stack_id = trial.config["stack_id"]
        if stack_id not in self._plans:
            self._plans[stack_id] = StackPlan.from_json(trial.config["plan"])
        return self._plans[stack_id]

    def _keep_error(self, trial: Any) -> str:
        """Write the whole traceback beside the results; return the line that names the cause."""
        written = Path(trial.local_path) / "error.txt"
        text = written.read_text(encoding="utf-8") if written.is_file() else "no error was recorded"
        self._errors_dir.mkdir(parents=True, exist_ok=True)
        path = self._errors_dir / f"{trial.config['stack_id']}.txt"
        path.write_text(text, encoding="utf-8")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1]


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
