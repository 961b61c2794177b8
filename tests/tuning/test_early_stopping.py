"""Early stopping asks the stack to end; it never kills it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import tiny
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from vitbench.records.types import EpochRow, StackReport, Status
from vitbench.tuning.search.early_stopping import EarlyStopping


class StopAt(FIFOScheduler):
    """Stops every trial whose objective is above a limit."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return TrialScheduler.STOP if result["objective"] > 0.5 else TrialScheduler.CONTINUE


@dataclass
class Trial:
    """What the scheduler reads of a trial of Tune's."""

    trial_id: str
    config: dict[str, str]


def row(epoch: int, loss: float) -> EpochRow:
    losses = dict.fromkeys(("train_loss", "val_loss", "test_loss"), loss)
    accuracies = dict.fromkeys(("train_accuracy", "val_accuracy", "test_accuracy"), 0.5)
    return EpochRow(trial_id="t", epoch=epoch, epoch_s=1.0, **losses, **accuracies)


class Requests:
    """Records what stacks would be asked."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str | None]] = []

    def end(self, reason: Status, stack_id: str | None = None) -> None:
        self.ended.append((reason, stack_id))


def test_stop_becomes_one_request_and_training_goes_on_to_its_checkpoint() -> None:
    """Tune is told CONTINUE, the stack is told `stopped`, and only once."""
    requests = Requests()
    stopping = EarlyStopping(StopAt(), requests, lambda plan, rows: rows[0].val_loss)
    plan = tiny.plan()
    trial = Trial("t1", {"stack_id": "s1", "plan": plan.to_json()})
    reports = [StackReport(epoch=e, rows=(row(e, loss),)) for e, loss in ((1, 0.1), (2, 0.9))]
    reports += [reports[-1], StackReport(epoch=3)]
    answers = [stopping.on_trial_result(None, trial, r.to_json()) for r in reports]
    assert set(answers) == {TrialScheduler.CONTINUE}
    assert requests.ended == [("stopped", "s1")]


def test_rungs_are_filled_again_after_a_resume() -> None:
    """A stack of a run before takes part in the comparison, epoch by epoch."""
    seen: list[tuple[str, int, float]] = []

    class Watch(FIFOScheduler):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            seen.append((trial.trial_id, result["epoch"], result["objective"]))
            return TrialScheduler.CONTINUE

    stopping = EarlyStopping(Watch(), Requests(), lambda plan, rows: rows[0].val_loss)
    plan = tiny.plan()
    stopping.replay(plan, {2: [row(2, 0.4)], 1: [row(1, 0.8)]})
    assert seen == [(plan.stack_id, 1, 0.8), (plan.stack_id, 2, 0.4)]


def test_an_epoch_without_an_evaluation_is_not_compared() -> None:
    """Neither now nor after a resume; one in which a model diverged is."""
    seen: list[int] = []

    class Watch(FIFOScheduler):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            seen.append(result["epoch"])
            return TrialScheduler.CONTINUE

    stopping = EarlyStopping(Watch(), Requests(), lambda plan, rows: 0.0)
    plan, passed = tiny.plan(), replace(row(2, 0.5), val_loss=None)
    trial = Trial("t1", {"stack_id": plan.stack_id, "plan": plan.to_json()})
    for one in (row(1, 0.5), passed, row(3, math.nan)):
        stopping.on_trial_result(None, trial, StackReport(epoch=one.epoch, rows=(one,)).to_json())
    stopping.replay(plan, {1: [row(1, 0.5)], 2: [passed]})
    assert seen == [1, 3, 1]


def test_a_stack_that_is_handed_out_again_is_compared_as_one() -> None:
    """Its second trial of Tune's must not stand beside the first at a rung."""
    added: list[str] = []
    asked: list[str] = []

    class Watch(FIFOScheduler):
        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            added.append(trial.trial_id)

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            asked.append(trial.trial_id)
            return TrialScheduler.CONTINUE

    stopping = EarlyStopping(Watch(), Requests(), lambda plan, rows: rows[0].val_loss)
    plan = tiny.plan()
    for name in ("t1", "t2"):
        trial = Trial(name, {"stack_id": plan.stack_id, "plan": plan.to_json()})
        stopping.on_trial_add(None, trial)
        stopping.on_trial_result(None, trial, StackReport(epoch=1, rows=(row(1, 0.1),)).to_json())
    assert added == [plan.stack_id] and asked == [plan.stack_id] * 2
