"""Budgets are hard, and count what earlier runs spent."""

from __future__ import annotations

from vitbench.config import Budget
from vitbench.records.history import Curve, History
from vitbench.records.types import Status, TrialOutcome
from vitbench.tuning.stop import BudgetMeter


def spent_before() -> History:
    """Two models of one stack, two epochs of 1800 s each, in a run of an hour."""
    history = History(stacks={"s": ["a", "b"]}, spent_s=3600.0)
    for trial_id in ("a", "b"):
        history.curves[trial_id] = Curve()
        for epoch in (1, 2):
            history.curves[trial_id].add({"epoch": epoch, "epoch_s": 1800.0})
        history.outcomes[trial_id] = TrialOutcome(trial_id=trial_id, status=Status.FINISHED)
    return history


def test_no_limit_is_never_exceeded() -> None:
    """The default."""
    assert BudgetMeter(Budget(), spent_before(), gpus_each=4).exceeded() is None


def test_a_spent_budget_is_spent_right_after_a_resume() -> None:
    """Each limit by itself, before anything new is trained; the message names it."""
    for name, limit in (("hours", 1.0), ("gpu_hours", 2.0), ("epochs", 4), ("models", 2)):
        meter = BudgetMeter(Budget(**{name: limit}), spent_before(), gpus_each=2)
        message = meter.exceeded()
        assert message is not None and message.startswith(f"budget.{name}={limit:g} is spent")


def test_new_work_is_added_to_the_old() -> None:
    """A stack's epoch costs its GPUs once, however many models train in it."""
    meter = BudgetMeter(Budget(gpu_hours=3.0, epochs=100), spent_before(), gpus_each=2)
    assert meter.exceeded() is None
    meter.epoch(rows=2, epoch_s=1800.0)
    assert meter.exceeded() == "budget.gpu_hours=3 is spent (3)"
    meter = BudgetMeter(Budget(epochs=5), spent_before(), gpus_each=0)
    meter.epoch(rows=2, epoch_s=1.0)
    assert meter.exceeded() == "budget.epochs=5 is spent (6)"
    meter = BudgetMeter(Budget(models=3), spent_before(), gpus_each=0)
    meter.trials_done(1)
    assert meter.exceeded() == "budget.models=3 is spent (3)"
