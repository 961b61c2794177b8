"""Early stopping on Tune's ASHA, as a request: the stack ends by itself, with its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Protocol

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from vitbench.plan import StackPlan
from vitbench.tuning.stop import STOPPED

Objective = Callable[[StackPlan, Sequence[Mapping[str, Any]]], float]


class EndsStacks(Protocol):
    """What is needed of Control here."""

    def end(self, reason: str, stack_id: str | None = None) -> None:
        """Ask a stack to end after its epoch."""


class Steering(FIFOScheduler):
    """Lets an inner scheduler decide, and turns its STOP into a request to the stack.

    Args:
        inner: an ASHA scheduler on the metric `objective` and the time attribute `epoch`.
        control: where stacks ask whether to go on.
        objective: of a stack after an epoch, from that epoch's rows.
    """

    def __init__(self, inner: TrialScheduler, control: EndsStacks, objective: Objective) -> None:
        super().__init__()
        self._inner = inner
        self._control = control
        self._objective = objective
        self._stopping: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Pass on."""
        self._inner.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ask the stack to end where the inner scheduler would kill it."""
        if result["rows"] and trial.trial_id not in self._stopping:
            value = self._objective(StackPlan.from_json(trial.config["plan"]), result["rows"])
            judged = {**result, "objective": value}
            if self._inner.on_trial_result(tune_controller, trial, judged) == self.STOP:
                self._stopping.add(trial.trial_id)
                self._control.end(STOPPED, trial.config["stack_id"])
        return str(self.CONTINUE)

    def replay(self, plan: StackPlan, epochs: Mapping[int, Sequence[Mapping[str, Any]]]) -> None:
        """Fill the inner scheduler's rungs with a stack of a run before the resume."""
        ghost: Any = SimpleNamespace(trial_id=f"past-{plan.stack_id}", config={})
        no_controller: Any = None
        self._inner.on_trial_add(no_controller, ghost)
        for epoch in sorted(epochs):
            value = self._objective(plan, epochs[epoch])
            self._inner.on_trial_result(no_controller, ghost, {"epoch": epoch, "objective": value})
