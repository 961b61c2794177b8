"""Who neither reports nor dies is named and killed; who is only slow is not."""

from __future__ import annotations

import pytest
import tiny

from vitbench.records.types import EpochRow, StackReport
from vitbench.tuning.events import Round, StackEnded, Started, Trained
from vitbench.tuning.stall import Stalls


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def watched(minutes: float | None, workers: int = 1) -> tuple[Stalls, Clock, list[str], list[str]]:
    clock, killed, said = Clock(), list[str](), list[str]()

    def kill(stack_id: str) -> int:
        killed.append(stack_id)
        return workers

    return (
        Stalls(minutes, kill, said.append, lambda p: "lr=0.1", clock),
        clock,
        killed,
        said,
    )


def passes(stalls: Stalls, clock: Clock, seconds: float) -> None:
    """Time in which Tune's loop goes round."""
    for _ in range(round(seconds / 5)):
        clock.now_s += 5
        stalls.observe(Round())


def report(epoch: int, epoch_s: float) -> StackReport:
    row = EpochRow(trial_id="a", epoch=epoch, epoch_s=epoch_s, train_loss=1.0, train_accuracy=0.5)
    return StackReport(epoch=epoch, rows=(row,))


def test_a_silent_worker_is_killed_after_the_stated_time() -> None:
    """Once, by name; and again only after as long a silence."""
    plan = tiny.plan()
    stalls, clock, killed, said = watched(1)
    stalls.observe(Started(plan))
    passes(stalls, clock, 60)
    assert killed == []
    passes(stalls, clock, 20)
    assert killed == [plan.stack_id] and said[0].startswith("lr=0.1: its worker has not reported")
    passes(stalls, clock, 40)
    assert len(killed) == 1


def test_slow_epochs_earn_patience() -> None:
    """Three times the last epoch, and never less than five minutes."""
    plan = tiny.plan()
    stalls, clock, killed, _ = watched(None)
    stalls.observe(Started(plan))
    passes(stalls, clock, 295)
    stalls.observe(Trained(plan, report(1, 200.0)))
    passes(stalls, clock, 590)
    assert killed == []
    passes(stalls, clock, 20)
    assert killed == [plan.stack_id]


def test_time_in_which_the_driver_slept_does_not_count() -> None:
    """A driver that was stopped for an hour has heard nobody."""
    plan = tiny.plan()
    stalls, clock, killed, _ = watched(1)
    stalls.observe(Started(plan))
    clock.now_s += 3600
    stalls.observe(Round())
    passes(stalls, clock, 50)
    assert killed == []
    passes(stalls, clock, 30)
    assert killed == [plan.stack_id]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_that_does_not_end_with_its_stack_is_killed(workers: int) -> None:
    """Stopped after its last report it would hold the sweep; one that has gone on is not named."""
    plan = tiny.plan()
    stalls, clock, killed, said = watched(1, workers)
    stalls.observe(Started(plan))
    passes(stalls, clock, 50)
    stalls.observe(StackEnded(plan, ()))
    passes(stalls, clock, 55)
    assert killed == []
    passes(stalls, clock, 300)
    assert killed == [plan.stack_id]
    assert said == ["lr=0.1: its worker did not end with it: it is killed"] * workers
