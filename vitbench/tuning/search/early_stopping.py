"""Early stopping on Tune's ASHA, as a request: the stack ends by itself, with its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from vitbench.plan import StackPlan
from vitbench.records.types import EpochRow, StackReport, Status
from vitbench.tuning.search.objective import are_evaluated
from vitbench.tuning.stop import EndsStacks

Objective = Callable[[StackPlan, Sequence[EpochRow]], float]


@dataclass(frozen=True)
class _Stack:
    """What a scheduler reads of a trial of Tune's; a stack that is handed out again is the same."""

    trial_id: str
    config: dict[str, Any] = field(default_factory=dict)


class EarlyStopping(FIFOScheduler):
    """Lets an inner scheduler decide, and turns its STOP into a request to the stack.

    Args:
        inner: an ASHA scheduler on the metric `objective` and the time attribute `epoch`.
        requests: where stacks ask whether to go on.
        objective: of a stack after an epoch, from that epoch's rows.
    """

    def __init__(self, inner: TrialScheduler, requests: EndsStacks, objective: Objective) -> None:
        super().__init__()
        self._inner = inner
        self._requests = requests
        self._objective = objective
        self._known: set[str] = set()
        self._stopping: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Let the inner scheduler know the stack, which it will be asked about."""
        self._add(tune_controller, trial.config["stack_id"])

    def _add(self, tune_controller: Any, stack_id: str) -> Any:
        stack = _Stack(stack_id)
        if stack_id not in self._known:
            self._known.add(stack_id)
            self._inner.on_trial_add(tune_controller, stack)  # type: ignore[arg-type]
        return stack

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ask the stack to end where the inner scheduler would kill it."""
        rows, stack_id = StackReport.from_json(result).rows, trial.config["stack_id"]
        if rows and are_evaluated(rows) and stack_id not in self._stopping:
            value = self._objective(StackPlan.from_json(trial.config["plan"]), rows)
            judged = {**result, "objective": value}
            stack = self._add(tune_controller, stack_id)
            if self._inner.on_trial_result(tune_controller, stack, judged) == self.STOP:
                self._stopping.add(stack_id)
                self._requests.end(Status.STOPPED, stack_id)
        return str(self.CONTINUE)

    def replay(self, plan: StackPlan, epochs: Mapping[int, Sequence[EpochRow]]) -> None:
        """Fill the inner scheduler's rungs with a stack of a run before the resume."""
        no_controller: Any = None
        past = self._add(no_controller, plan.stack_id)
        for epoch in sorted(epoch for epoch, rows in epochs.items() if are_evaluated(rows)):
            value = self._objective(plan, epochs[epoch])
            self._inner.on_trial_result(no_controller, past, {"epoch": epoch, "objective": value})
