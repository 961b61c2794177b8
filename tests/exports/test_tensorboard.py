"""TensorBoard's files while a sweep runs: each epoch once, and no way to stop the sweep."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from event_files import events, scalars

from vitbench.exports.tensorboard import TensorBoard
from vitbench.plan import TrialConfig
from vitbench.records.types import EpochRow, Status, TrialOutcome


def row(trial: TrialConfig, epoch: int, loss: float = 1.0) -> EpochRow:
    others = dict.fromkeys(
        ("train_loss", "test_loss", "train_accuracy", "val_accuracy", "test_accuracy"), 0.25
    )
    return EpochRow(trial_id=trial.trial_id, epoch=epoch, val_loss=loss, epoch_s=0.5, **others)


def end(trial: TrialConfig, status: Status, best_val_loss: float | None = None) -> TrialOutcome:
    return TrialOutcome(
        trial_id=trial.trial_id, stack_id="s", status=status, best_val_loss=best_val_loss
    )


def nothing(trial_id: str) -> dict[int, EpochRow]:
    """No earlier runs."""
    return {}


def never(reason: str) -> None:
    raise AssertionError(reason)


def test_each_epoch_is_written_once_also_over_a_resume(tmp_path: Path) -> None:
    """What a crash repeats is passed over; a resume adds to the run that is there."""
    stack = tiny.plan({"lr": 0.1}, {"lr": 0.2})
    one, two = stack.members
    board = TensorBoard(tmp_path, ["lr"], nothing, never)
    board.started(stack)
    board.epochs([row(one, 1, 4.0), row(two, 1, 5.0)])
    board.started(stack)  # after a crash
    board.epochs([row(one, 1, 4.0), row(one, 2, 3.0), row(two, 2, float("nan"))])
    first, second = tmp_path / f"lr=0.1_{one.trial_id}", tmp_path / f"lr=0.2_{two.trial_id}"
    assert scalars(first, "val_loss") == [(1, 4.0), (2, 3.0)]  # before anything is closed
    board.ended(stack, [end(one, Status.INTERRUPTED)])
    board.close()
    before = {one.trial_id: {1: row(one, 1, 4.0), 2: row(one, 2, 3.0)}}
    again = TensorBoard(tmp_path, ["lr"], lambda trial_id: before.get(trial_id, {}), never)
    again.started(stack)
    again.epochs([row(one, 2, 3.0), row(one, 3, 2.0)])
    again.close()
    assert scalars(first, "val_loss") == [(1, 4.0), (2, 3.0), (3, 2.0)]
    assert scalars(second, "val_loss") == [(1, 5.0)]
    assert scalars(second, "epoch_s") == [(1, 0.5), (2, 0.5)]


def test_a_resume_that_first_exports_has_the_earlier_epochs_too(tmp_path: Path) -> None:
    """Curves begin at the first epoch, whenever the export was asked for."""
    stack = tiny.plan({"lr": 0.1})
    (one,) = stack.members
    before = {2: row(one, 2), 1: row(one, 1)}
    board = TensorBoard(tmp_path, ["lr"], lambda trial_id: before, never)
    board.started(stack)
    board.epochs([row(one, 3)])
    board.close()
    (folder,) = tmp_path.iterdir()
    assert [step for step, _ in scalars(folder, "val_loss")] == [1, 2, 3]


def test_the_end_of_a_model_has_its_settings_and_best_scores(tmp_path: Path) -> None:
    """TensorBoard's table of hyperparameters needs both, in the run itself."""
    stack = tiny.plan({"lr": 0.1})
    (one,) = stack.members
    board = TensorBoard(tmp_path, ["lr"], nothing, never)
    board.started(stack)
    board.epochs([row(one, 1), row(one, 2)])
    board.ended(stack, [end(one, Status.FINISHED, 0.5)])
    (folder,) = tmp_path.iterdir()
    assert scalars(folder, "best_val_loss") == [(2, 0.5)]
    tags = {v.tag: v for event in events(folder) for v in event.summary.value}
    told = tags["_hparams_/session_start_info"].metadata.plugin_data.content
    assert b"lr" in told and b"finished" in told


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_a_failure_is_told_once_and_ends_the_export_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A full disk or a folder that cannot be made raises nothing into the sweep."""
    from tensorboardX.event_file_writer import EventsWriter

    folder = tmp_path / "tensorboard"
    if when == "at the start":
        folder.write_text("a file where the folder should be")
    told: list[str] = []
    stack = tiny.plan({"lr": 0.1})
    (one,) = stack.members
    board = TensorBoard(folder, ["lr"], nothing, told.append)
    board.started(stack)
    board.epochs([row(one, 1)])
    if when == "later":
        assert told == []

        def full(_: EventsWriter) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(EventsWriter, "flush", full)
    for epoch in (2, 3):
        board.epochs([row(one, epoch)])
    board.ended(stack, [end(one, Status.FINISHED)])
    board.close()
    assert len(told) == 1 and ("Error: " in told[0]), told
