"""Early stopping on Tune's ASHA, as a request: the stack ends by itself, with its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from vitbench.plan import StackPlan
from vitbench.records.types import EpochRow, StackReport, Status
from vitbench.tuning.stop import EndsStacks

Objective = Callable[[StackPlan, Sequence[EpochRow]], float]


@dataclass(frozen=True)
class _PastTrial:
    """What a scheduler reads of a trial of Tune's, for a stack of a run before."""

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
        self._stopping: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Let the inner scheduler know the trial, which it will be asked about."""
        self._inner.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ask the stack to end where the inner scheduler would kill it."""
        rows = StackReport.from_json(result).rows
        if rows and trial.trial_id not in self._stopping:
            value = self._objective(StackPlan.from_json(trial.config["plan"]), rows)
            judged = {**result, "objective": value}
            if self._inner.on_trial_result(tune_controller, trial, judged) == self.STOP:
                self._stopping.add(trial.trial_id)
                self._requests.end(Status.STOPPED, trial.config["stack_id"])
        return str(self.CONTINUE)

    def replay(self, plan: StackPlan, epochs: Mapping[int, Sequence[EpochRow]]) -> None:
        """Fill the inner scheduler's rungs with a stack of a run before the resume."""
        past: Any = _PastTrial(f"past-{plan.stack_id}")
        no_controller: Any = None
        self._inner.on_trial_add(no_controller, past)
        for epoch in sorted(epochs):
            value = self._objective(plan, epochs[epoch])
            self._inner.on_trial_result(no_controller, past, {"epoch": epoch, "objective": value})
