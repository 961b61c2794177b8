"""The driver's record: what crashes, who is told, when to give up."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from vitbench.config import Budget
from vitbench.plan import StackPlan
from vitbench.records import tables
from vitbench.records.history import History
from vitbench.records.ledger import Ledger
from vitbench.terminal.progress import PlainProgress, SweepView, Tracker
from vitbench.tuning.budget import BudgetMeter
from vitbench.tuning.recorder import Interrupt, Recorder


class World:
    """Everything around a recorder, noting what it is told."""

    def __init__(self, folder: Path, budget: Budget) -> None:
        from rich.console import Console

        self.folder = folder
        self.ended: list[tuple[str, list[str]]] = []
        self.asked_to_end: list[str] = []
        self.finished = False
        self.console = Console(record=True, width=200, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115
        view = SweepView(total_stacks=9, known_flops=1.0, slots=1)
        self.ledger = Ledger(folder / tables.LEDGER)
        self.ledger.__enter__()
        nothing_to_drop = SimpleNamespace(drop=lambda rows: [])
        self.recorder = Recorder(
            ledger=self.ledger,
            tracker=Tracker(view, PlainProgress(self.console, view)),
            control=SimpleNamespace(end=lambda reason: self.asked_to_end.append(reason)),  # type: ignore[arg-type]
            searcher=SimpleNamespace(finish=self.finish),  # type: ignore[arg-type]
            source=SimpleNamespace(ended=self.note_end, reported=lambda *row: None),  # type: ignore[arg-type]
            budget=BudgetMeter(budget, History(), gpus_each=0),
            keeper=nothing_to_drop,  # type: ignore[arg-type]
            label=lambda plan: plan.stack_id,
            errors_dir=folder / "errors",
            planned=(),
        )

    def finish(self) -> None:
        self.finished = True

    def note_end(self, stack_id: str, outcomes: Sequence[Mapping[str, Any]]) -> None:
        self.ended.append((stack_id, [row["status"] for row in outcomes]))

    def crash(self, plan: StackPlan, cause: str, *, started: bool = True) -> None:
        folder = self.folder / f"trial-{plan.stack_id}"
        folder.mkdir()
        (folder / "error.txt").write_text(f"Traceback ...\n  File x\n{cause}\n")
        config = {"stack_id": plan.stack_id, "plan": plan.to_json()}
        trial = SimpleNamespace(config=config, local_path=str(folder))
        if started:
            self.recorder.on_trial_start(0, [], trial)
        self.recorder.on_trial_error(0, [], trial)
        self.recorder.on_step_begin(0, [])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path, Budget())
    yield found
    found.ledger.__exit__()
    found.console.file.close()


def plans(count: int) -> list[StackPlan]:
    return [tiny.plan({"lr": 0.1 * (n + 1)}) for n in range(count)]


def test_the_same_crash_three_times_ends_the_sweep(world: World) -> None:
    """A wrong path on every node must not burn the night; the cause is kept."""
    for plan in plans(3):
        world.crash(plan, "ValueError: no such disk")
    assert [statuses for _, statuses in world.ended] == [["crashed"]] * 3
    assert world.recorder.gave_up == "ValueError: no such disk"
    assert world.finished and world.asked_to_end == ["interrupted"]
    trials, _ = tables.build(world.folder)
    assert list(trials["status"]) == ["crashed"] * 3
    assert set(trials["error"]) == {"ValueError: no such disk"}
    assert len(list((world.folder / "errors").iterdir())) == 3


def test_different_crashes_do_not_end_the_sweep(world: World) -> None:
    """Three causes are three accidents."""
    for plan, cause in zip(plans(3), ("A: 1", "B: 2", "A: 1"), strict=True):
        world.crash(plan, cause)
    assert world.recorder.gave_up is None and not world.finished


def test_a_worker_that_dies_before_its_stack_was_started(world: World) -> None:
    """Tune reports the error of such a stack only; it is planned and ended all the same."""
    (plan,) = plans(1)
    world.crash(plan, "ActorDiedError: gone", started=False)
    trials, _ = tables.build(world.folder)
    assert trials["trial_id"].tolist() == [plan.members[0].trial_id]
    assert trials["status"].tolist() == ["crashed"]
    assert trials["lr"].tolist() == [plan.members[0].train.lr]
    assert world.ended == [(plan.stack_id, ["crashed"])]


def test_out_of_memory_has_its_own_state(world: World) -> None:
    """It says what to change: a smaller model or batch."""
    (plan,) = plans(1)
    world.crash(plan, "torch.OutOfMemoryError: CUDA out of memory")
    trials, _ = tables.build(world.folder)
    assert list(trials["status"]) == ["oom"]


def test_a_spent_budget_ends_everything_once(tmp_path: Path) -> None:
    """At the limit no stack is started and those that run are asked to end."""
    world = World(tmp_path, Budget(epochs=1))
    world.recorder.on_step_begin(0, [])
    assert world.asked_to_end == []
    world.recorder._budget.epoch(rows=1, epoch_s=1.0)
    world.recorder.on_step_begin(1, [])
    world.recorder.on_step_begin(2, [])
    assert world.asked_to_end == ["budget"] and world.finished
    assert world.recorder.spent == "budget.epochs=1 is spent (1)"
    world.ledger.__exit__()
    world.console.file.close()


def test_the_first_signal_asks_and_the_second_stops() -> None:
    """Ctrl-C and SIGTERM alike; afterwards the handlers of before are back."""
    before = signal.getsignal(signal.SIGTERM)
    asked: list[bool] = []
    with Interrupt(lambda: asked.append(True)) as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested and asked == [True]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before
