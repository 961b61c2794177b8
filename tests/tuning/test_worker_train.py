"""Out of memory halves a stack and loses no member; a reused process is set up anew."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from vitbench.config import Evaluation
from vitbench.data.image_set import ImageSet
from vitbench.plan import StackPlan
from vitbench.records.tables import LEDGER
from vitbench.records.types import StackReport, Status
from vitbench.storage.checkpoints import Checkpoints
from vitbench.storage.place import Place
from vitbench.training.stack_size import fit_or_halve
from vitbench.tuning.worker.train import Reporter, WorkerContext, train_part


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """What training sets in its process holds for no other test of this one."""
    yield
    torch.set_flush_denormal(False)


class Images:
    """The tiny images, without a cache."""

    def open(self) -> ImageSet:
        return tiny.image_set()


def checkpoints_in(folder: Path) -> Checkpoints:
    """Those of a results folder, which is known by its ledger."""
    folder.mkdir()
    (folder / LEDGER).touch()
    return Checkpoints(Place(str(folder)))


class GoOn:
    """Nobody asks a stack to end."""

    def runs_here(self, stack_id: str) -> bool:
        return True

    def reason_to_end(self, stack_id: str) -> Status | None:
        return None


def context_in(folder: Path) -> WorkerContext:
    return WorkerContext(
        images=Images(),  # type: ignore[arg-type]
        checkpoints=checkpoints_in(folder),
        checkpoint_every_s=0.0,
        workers=1,
        cpus=1,
        gpus=0,
        every_epoch=False,
        stop=GoOn(),  # type: ignore[arg-type]
        evaluation=Evaluation(layers=True),
    )


def not_called(report: StackReport) -> None:
    raise AssertionError(f"nothing should have been sent: {report}")


def test_every_member_is_trained_once_in_stacks_that_fit() -> None:
    """Five members where two fit: 5 -> 3 -> 2, 1 and 2, in the order of the stack."""
    plan = tiny.plan(*({"lr": lr} for lr in (0.1, 0.2, 0.3, 0.4, 0.5)))
    trained: list[int] = []
    sizes: list[int] = []
    released: list[bool] = []

    def run(part: StackPlan) -> bool:
        sizes.append(part.size)
        if part.size > 2:
            raise torch.OutOfMemoryError
        trained.extend(plan.members.index(member) for member in part.members)
        return True

    fit_or_halve(plan, run, lambda: released.append(True), send=not_called)
    assert trained == [0, 1, 2, 3, 4]
    assert sizes == [5, 3, 2, 1, 2]
    assert len(released) == 2


def test_models_that_do_not_fit_alone_end_as_oom() -> None:
    """With cause and traceback, under the planned id; those that were trained keep their end."""
    plan = tiny.plan(*({"lr": lr} for lr in (0.1, 0.2, 0.3, 0.4)))
    sent: list[StackReport] = []

    def run(part: StackPlan) -> bool:
        if part.members[0] is plan.members[0] and part.size == 2:
            return True
        raise torch.OutOfMemoryError("CUDA out of memory")

    fit_or_halve(plan, run, lambda: None, sent.append)
    (report,) = sent
    assert [o.trial_id for o in report.outcomes] == [m.trial_id for m in plan.members[2:]]
    assert {(o.status, o.stack_id) for o in report.outcomes} == {("oom", plan.stack_id)}
    assert report.outcomes[0].error == "torch.OutOfMemoryError: CUDA out of memory"
    assert "Traceback" in report.traceback


def test_halves_report_under_the_planned_stack(tmp_path: Path) -> None:
    """The tables of a stack that was halved are those of one that fits: ids, numbers and all."""
    plan = tiny.plan(*({"lr": lr} for lr in (0.003, 0.001, 0.01)), epochs=2)
    found = []
    for most in (3, 2):
        context = context_in(tmp_path / f"{most}")
        sent: list[StackReport] = []
        reporter = Reporter(plan.stack_id, plan.shared.train.epochs, context, sent.append)

        def run(
            part: StackPlan, most: int = most, context: Any = context, r: Any = reporter
        ) -> bool:
            if part.size > most:
                raise torch.OutOfMemoryError
            return train_part(part, context, r, torch.device("cpu"))

        fit_or_halve(plan, run, lambda: None, not_called)
        found.append([outcome for report in sent for outcome in report.outcomes])
    whole, halved = found
    assert [o.stack_size for o in halved] == [2, 2, 1]
    for one, two in zip(whole, halved, strict=True):
        assert one.stack_id == two.stack_id == plan.stack_id
        for name in ("trial_id", "status", "epochs", "best_epoch", "parameters"):
            assert getattr(one, name) == getattr(two, name), name
        for name in ("train_loss", "val_loss", "test_loss", "best_val_loss", "initial_val_loss"):
            assert getattr(two, name) == pytest.approx(getattr(one, name), rel=1e-4), name


def test_what_a_worker_warns_of_comes_with_its_next_report(tmp_path: Path) -> None:
    """A line each, while the stack is trained and by vitbench alone; nothing is said twice."""
    plan = tiny.plan({"lr": 0.1}, {"lr": 0.2})
    sent: list[StackReport] = []
    context = context_in(tmp_path / "results")
    reporter = Reporter(plan.stack_id, plan.shared.train.epochs, context, sent.append)
    logging.getLogger("vitbench.before").warning("not of this stack")

    def run(part: StackPlan) -> bool:
        logging.getLogger("torch").warning("of no interest")
        if part.size == 2:
            raise torch.OutOfMemoryError
        return train_part(part, context, reporter, torch.device("cpu"))

    with reporter.hearing_warnings():
        fit_or_halve(plan, run, lambda: logging.getLogger("vitbench.x").warning("a\nb"), not_called)
    logging.getLogger("vitbench.after").warning("not of this stack")
    reporter.finish(())
    told = [line for report in sent for line in report.warnings]
    assert told == ["a b", "out of memory with 2 members; trying 1"]
    assert sent[0].warnings == StackReport.from_json(sent[0].to_json()).warnings == tuple(told)


def test_a_reused_process_takes_the_threads_of_its_next_stack(tmp_path: Path) -> None:
    """Each stack computes on the threads that were planned for it, not on those of the last.

    It takes numbers below the smallest normal one for zero, with which processors are slow.
    """
    context, plan, before = context_in(tmp_path / "r"), tiny.plan(epochs=1), torch.get_num_threads()
    found = []
    try:
        for cpus in (2, 1, 1.5):
            reporter = Reporter(plan.stack_id, 1, context, lambda report: None)
            train_part(plan, replace(context, cpus=cpus), reporter, torch.device("cpu"))
            found.append(torch.get_num_threads())
        assert (torch.full((64,), 1e-39) * 1.0).count_nonzero() == 0
    finally:
        torch.set_num_threads(before)
    assert found == [2, 1, 1]


def test_a_request_to_end_ends_the_other_halves_too() -> None:
    """After Ctrl-C no further half is started; its members go on with the resume."""
    sizes: list[int] = []

    def run(part: StackPlan) -> bool:
        sizes.append(part.size)
        if part.size > 1:
            raise torch.OutOfMemoryError
        return False

    fit_or_halve(tiny.plan({"lr": 0.1}, {"lr": 0.2}), run, lambda: None, not_called)
    assert sizes == [2, 1]
