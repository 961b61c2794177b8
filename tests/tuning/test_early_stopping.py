"""Early stopping asks the stack to end; it never kills it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import tiny
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from vitbench.tuning.search.early_stopping import Steering


class StopAt(FIFOScheduler):
    """Stops every trial whose objective is above a limit."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return TrialScheduler.STOP if result["objective"] > 0.5 else TrialScheduler.CONTINUE


class Requests:
    """Records what the control actor would be told."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str | None]] = []

    def end(self, reason: str, stack_id: str | None = None) -> None:
        self.ended.append((reason, stack_id))


def test_stop_becomes_one_request_and_training_goes_on_to_its_checkpoint() -> None:
    """Tune is told CONTINUE, the stack is told `stopped`, and only once."""
    requests = Requests()
    steering = Steering(StopAt(), requests, lambda plan, rows: float(rows[0]["val_loss"]))
    plan = tiny.plan()
    trial = SimpleNamespace(trial_id="t1", config={"stack_id": "s1", "plan": plan.to_json()})
    good, bad = {"rows": [{"val_loss": 0.1}]}, {"rows": [{"val_loss": 0.9}]}
    answers = [steering.on_trial_result(None, trial, r) for r in (good, bad, bad, {"rows": []})]
    assert set(answers) == {TrialScheduler.CONTINUE}
    assert requests.ended == [("stopped", "s1")]


def test_rungs_are_filled_again_after_a_resume() -> None:
    """A stack of a run before takes part in the comparison, epoch by epoch."""
    seen: list[tuple[str, int, float]] = []

    class Watch(FIFOScheduler):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            seen.append((trial.trial_id, result["epoch"], result["objective"]))
            return TrialScheduler.CONTINUE

    steering = Steering(Watch(), Requests(), lambda plan, rows: float(rows[0]["val_loss"]))
    plan = tiny.plan()
    steering.replay(plan, {2: [{"val_loss": 0.4}], 1: [{"val_loss": 0.8}]})
    ghost = f"past-{plan.stack_id}"
    assert seen == [(ghost, 1, 0.8), (ghost, 2, 0.4)]
