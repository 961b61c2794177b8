"""Early stopping on Tune's ASHA, as a request: the stack ends by itself, with its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from vitbench.tuning.control import STOPPED, Control

Objective = Callable[[Mapping[str, Any], list[dict[str, Any]]], float]


class Steering(FIFOScheduler):  # type: ignore[misc]  # Ray has no types
    """Lets an inner scheduler decide, and turns its STOP into a request to the stack.

    Args:
        inner: an ASHA scheduler on the metric `objective` and the time attribute `epoch`.
        control: where stacks ask whether to go on.
        objective: computes the objective from a trial's configuration and an epoch's rows.
    """

    def __init__(self, inner: TrialScheduler, control: Control, objective: Objective) -> None:
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
            judged = {**result, "objective": self._objective(trial.config, result["rows"])}
            if self._inner.on_trial_result(tune_controller, trial, judged) == self.STOP:
                self._stopping.add(trial.trial_id)
                self._control.end(STOPPED, trial.config["stack_id"])
        return str(self.CONTINUE)
