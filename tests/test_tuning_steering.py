"""Early stopping asks the stack to end; it never kills it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from vitbench.tuning.steering import Steering


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
    steering = Steering(StopAt(), requests, lambda config, rows: rows[0]["val_loss"])  # type: ignore[arg-type]
    trial = SimpleNamespace(trial_id="t1", config={"stack_id": "s1"})
    good, bad = {"rows": [{"val_loss": 0.1}]}, {"rows": [{"val_loss": 0.9}]}
    answers = [steering.on_trial_result(None, trial, r) for r in (good, bad, bad, {"rows": []})]
    assert set(answers) == {TrialScheduler.CONTINUE}
    assert requests.ended == [("stopped", "s1")]
