"""From Tune's calls to events: the ledger first, crashes with their cause, when to give up."""

from __future__ import annotations

import errno
import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
import tiny
from rich.console import Console

from vitbench.config import Budget
from vitbench.plan import StackPlan
from vitbench.records import ledger, tables
from vitbench.records.history import History
from vitbench.records.ledger import Ledger
from vitbench.records.types import EpochRow, StackReport, Status, TrialOutcome
from vitbench.terminal.progress import Progress, SweepView
from vitbench.tuning.events import MembersEnded, StackEnded, StackEvent, Started, Trained
from vitbench.tuning.observers import ErrorLog, LedgerObserver, ProgressObserver
from vitbench.tuning.recorder import Recorder
from vitbench.tuning.stop import BudgetMeter, BudgetObserver, GivingUp, SweepStop


@dataclass
class TuneTrial:
    """What the recorder reads of a trial of Tune's."""

    plan: StackPlan
    local_path: str
    error: Exception | None = None
    num_failures: int = 1
    max_failures: int = 0
    config: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.config = {"stack_id": self.plan.stack_id, "plan": self.plan.to_json()}

    @property
    def pickled_error_file(self) -> str | None:
        if self.error is None:
            return None
        file = Path(self.local_path) / "error.pkl"
        file.write_bytes(pickle.dumps(self.error))
        return str(file)


class Requests:
    """Notes what the running stacks would be asked."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str | None]] = []

    def end(self, reason: Status, stack_id: str | None = None) -> None:
        self.ends.append((reason, stack_id))


class Events:
    """Notes what it is told, and what the ledger held by then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.told: list[StackEvent] = []
        self.lines: list[list[str]] = []

    def observe(self, event: StackEvent) -> None:
        self.told.append(event)
        self.lines.append([line["kind"] for line in ledger.read(self._path)])

    def of(self, kind: type[StackEvent]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]


class World:
    """A recorder with the observers of a sweep, without Ray."""

    def __init__(self, folder: Path, out: Ledger, budget: Budget) -> None:
        self.folder = folder
        self.requests, self.calls, self.output = Requests(), [], io.StringIO()  # type: ignore[var-annotated]
        view = SweepView(total_stacks=9, known_flops=1.0, slots=1)
        self.view = view
        self.again: list[StackPlan] = []
        self.over: list[str] = []
        shown = Progress(Console(file=self.output, width=200), view)
        stop = SweepStop(self.requests, lambda: self.calls.append("no more"), shown.say)
        self.meter = BudgetMeter(budget, History(), gpus_each=0)
        self.limits, self.giving_up = BudgetObserver(self.meter, stop), GivingUp(stop)
        self.events = Events(folder / tables.LEDGER)
        progress = ProgressObserver(shown, lambda plan: plan.stack_id)
        self.recorder = Recorder(
            LedgerObserver(out, lambda plan: 1),
            [
                self.events,
                ErrorLog(folder / "errors"),
                self.limits,
                progress,
                self.giving_up,
                stop,
            ],
            self.again.append,
            self.over.append,
        )

    def trial(self, plan: StackPlan) -> TuneTrial:
        folder = self.folder / f"trial-{plan.stack_id}"
        folder.mkdir(exist_ok=True)
        return TuneTrial(plan, str(folder))

    def report(self, trial: TuneTrial, report: StackReport) -> None:
        self.recorder.on_trial_result(0, [], trial, {**report.to_json(), "training_iteration": 1})

    def crash(
        self, plan: StackPlan, cause: str, *, started: bool = True, error: Exception | None = None
    ) -> None:
        trial = self.trial(plan)
        trial.error = error
        (Path(trial.local_path) / "error.txt").write_text(f"Traceback ...\n  File x\n{cause}\n")
        if started:
            self.recorder.on_trial_start(0, [], trial)
        self.recorder.on_trial_error(0, [], trial)
        self.recorder.on_step_begin(0, [])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Ledger(tmp_path / tables.LEDGER) as out:
        yield World(tmp_path, out, Budget())


def plans(count: int) -> list[StackPlan]:
    return [tiny.plan({"lr": 0.1 * (n + 1)}) for n in range(count)]


def row(trial_id: str, epoch: int) -> EpochRow:
    names = ("train_loss", "val_loss", "test_loss", "train_accuracy", "val_accuracy")
    values = dict.fromkeys((*names, "test_accuracy"), 0.5)
    return EpochRow(trial_id=trial_id, epoch=epoch, epoch_s=1.0, **values)


def test_the_ledger_knows_before_anybody_else(world: World) -> None:
    """Whoever acts on an event (the search, the budget) must find it on the disk after a crash."""
    (plan,) = plans(1)
    trial, trial_id = world.trial(plan), plan.members[0].trial_id
    world.recorder.on_trial_start(0, [], trial)
    world.report(trial, StackReport(epoch=1, rows=(row(trial_id, 1),)))
    end = TrialOutcome(trial_id=trial_id, stack_id=plan.stack_id, status=Status.FINISHED)
    world.report(trial, StackReport(epoch=2, rows=(row(trial_id, 2),), outcomes=(end,)))
    kinds = [type(event) for event in world.events.told]
    assert kinds == [Started, Trained, Trained, MembersEnded, StackEnded]
    all_lines = ["trial", "epoch", "epoch", "outcome"]
    assert world.events.lines == [
        all_lines[:1],
        all_lines[:2],
        all_lines[:3],
        all_lines,
        all_lines,
    ]
    assert world.view.counts == {"finished": 1}


def test_a_stack_has_ended_when_its_last_part_has(world: World) -> None:
    """Halves report one after the other, under the id of the stack as it was planned."""
    plan = tiny.plan({"lr": 0.1}, {"lr": 0.2})
    trial = world.trial(plan)
    world.recorder.on_trial_start(0, [], trial)
    for member in plan.members:
        assert not world.events.of(StackEnded)
        end = TrialOutcome(
            trial_id=member.trial_id, stack_id=plan.stack_id, status=Status.FINISHED, epochs=3
        )
        world.report(trial, StackReport(epoch=3, outcomes=(end,)))
    (ended,) = world.events.of(StackEnded)
    assert [o.trial_id for o in ended.outcomes] == [m.trial_id for m in plan.members]
    trials, _ = tables.build(world.folder)
    assert set(trials["stack_id"]) == {plan.stack_id}


def test_the_same_crash_three_times_ends_the_sweep(world: World) -> None:
    """A wrong path on every node must not burn the night; the cause is kept."""
    for plan in plans(3):
        world.crash(plan, "ValueError: no such disk")
    ends = [[o.status for o in event.outcomes] for event in world.events.of(StackEnded)]
    assert ends == [["crashed"]] * 3
    assert world.giving_up.cause == "ValueError: no such disk"
    assert world.calls == ["no more"] and world.requests.ends == [("gave_up", None)]
    assert "again and again (ValueError: no such disk)" in world.output.getvalue()
    trials, _ = tables.build(world.folder)
    assert list(trials["status"]) == ["crashed"] * 3
    assert set(trials["error"]) == {"ValueError: no such disk"}
    assert len(list((world.folder / "errors").iterdir())) == 3


def test_different_crashes_do_not_end_the_sweep(world: World) -> None:
    """Three causes are three accidents."""
    for plan, cause in zip(plans(3), ("A: 1", "B: 2", "A: 1"), strict=True):
        world.crash(plan, cause)
    assert world.giving_up.cause is None and not world.calls


def test_a_model_that_was_trained_ends_the_row_of_crashes(world: World) -> None:
    """Two crashes, a success and a crash are no three in a row."""
    one, two, good, last = plans(4)
    world.crash(one, "A: 1")
    world.crash(two, "A: 1")
    trial = world.trial(good)
    world.recorder.on_trial_start(0, [], trial)
    end = TrialOutcome(trial_id=good.members[0].trial_id, status=Status.FINISHED)
    world.report(trial, StackReport(epoch=3, outcomes=(end,)))
    world.crash(last, "A: 1")
    assert world.giving_up.cause is None and not world.calls


def test_a_crash_that_is_tried_again_is_an_event_and_no_end(world: World) -> None:
    """The ledger has the retry; the members have no outcome."""
    (plan,) = plans(1)
    trial = world.trial(plan)
    (Path(trial.local_path) / "error.txt").write_text("Traceback\nOSError: gone\n")
    world.recorder.on_trial_start(0, [], trial)
    world.recorder.on_trial_recover(0, [], trial)
    *_, last = ledger.read(world.folder / tables.LEDGER)
    assert (last["event"], last["error"]) == ("retry", "OSError: gone")
    assert "going on from the last checkpoint (OSError: gone)" in world.output.getvalue()
    assert not world.events.of(StackEnded) and world.giving_up.cause is None


def test_a_stack_that_tune_drops_too_early_is_handed_out_again(world: World) -> None:
    """The reused process died while it took the stack over: retries are left, Tune makes none.

    Bounded, in case that it dies so every time.
    """
    (plan,) = plans(1)
    trial = world.trial(plan)
    trial.max_failures = 2
    (Path(trial.local_path) / "error.txt").write_text("Traceback\nActorDiedError: gone\n")
    for _ in range(2):
        world.recorder.on_trial_error(0, [], trial)
    assert world.again == [plan, plan]
    assert not world.events.of(StackEnded)
    assert "going on from the last checkpoint" in world.output.getvalue()
    world.recorder.on_trial_error(0, [], trial)
    assert world.again == [plan, plan] and len(world.events.of(StackEnded)) == 1


@pytest.mark.parametrize("retries", [0, 1])
def test_a_worker_that_dies_after_it_reported_every_end(world: World, retries: int) -> None:
    """Its stack is done: nobody trains it once more, and no crash is written down."""
    (plan,) = plans(1)
    trial = world.trial(plan)
    trial.max_failures = retries
    (Path(trial.local_path) / "error.txt").write_text("Traceback\nActorDiedError: gone\n")
    world.recorder.on_trial_start(0, [], trial)
    end = TrialOutcome(
        trial_id=plan.members[0].trial_id, stack_id=plan.stack_id, status=Status.FINISHED
    )
    world.report(trial, StackReport(epoch=3, outcomes=(end,)))
    told = len(world.events.told)
    if retries:
        world.recorder.on_trial_recover(0, [], trial)
        world.recorder.on_trial_start(0, [], trial)
    else:
        world.recorder.on_trial_error(0, [], trial)
    assert world.over == [plan.stack_id] * retries
    assert len(world.events.told) == told and not world.again


def test_a_worker_that_dies_before_its_stack_was_started(world: World) -> None:
    """Tune reports the error of such a stack only; it is planned and ended all the same."""
    (plan,) = plans(1)
    world.crash(plan, "ActorDiedError: gone", started=False)
    trials, _ = tables.build(world.folder)
    assert trials["trial_id"].tolist() == [plan.members[0].trial_id]
    assert trials["status"].tolist() == ["crashed"]
    assert trials["lr"].tolist() == [plan.members[0].train.lr]
    assert len(world.events.of(StackEnded)) == 1


def test_out_of_memory_is_what_the_worker_says(world: World) -> None:
    """Its outcome is typed, and the traceback is kept; a crash that only mentions it is a crash."""
    first, second, third = plans(3)
    trial = world.trial(first)
    world.recorder.on_trial_start(0, [], trial)
    why = "torch.OutOfMemoryError: CUDA out of memory"
    end = TrialOutcome(trial_id=first.members[0].trial_id, status=Status.OOM, error=why)
    world.report(trial, StackReport(epoch=0, outcomes=(end,), traceback=f"Traceback\n{why}"))
    world.crash(second, "RuntimeError: no OutOfMemoryError at all")
    world.crash(third, "the node is full", error=ray.exceptions.OutOfMemoryError("full"))
    trials, _ = tables.build(world.folder)
    assert list(trials["status"]) == ["oom", "crashed", "oom"]
    assert trials["error"].iloc[0] == why
    assert why in (world.folder / "errors" / f"{first.stack_id}.txt").read_text()


def test_a_spent_budget_ends_everything_once(tmp_path: Path) -> None:
    """At the limit no stack is started and those that run are asked to end."""
    with Ledger(tmp_path / tables.LEDGER) as out:
        world = World(tmp_path, out, Budget(epochs=2))
        (plan,) = plans(1)
        trial = world.trial(plan)
        world.recorder.on_trial_start(0, [], trial)
        for epoch in (1, 2):
            world.recorder.on_step_begin(epoch, [])
            assert world.requests.ends == []
            report = StackReport(epoch=epoch, rows=(row(plan.members[0].trial_id, epoch),))
            world.report(trial, report)
        world.recorder.on_step_begin(3, [])
        world.recorder.on_step_begin(4, [])
    assert world.requests.ends == [("budget", None)] and world.calls == ["no more"]
    assert world.limits.spent == "budget.epochs=2 is spent (2)"


def test_a_full_disk_ends_the_sweep(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while an error is written; the first error is kept, and nobody is told more."""
    (plan,) = plans(1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vitbench.tuning.observers.write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        world.crash(plan, "RuntimeError: an error")
    told = len(world.events.told)
    with pytest.raises(OSError, match="No space left"):
        world.recorder.on_step_begin(0, [])
    assert world.recorder.broken is not None and len(world.events.told) == told
