"""The types between the parts of a sweep: columns exist once, and mypy sees a misspelt one."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from mypy import api

from vitbench.records.rows import TRIAL_COLUMNS, columns_of
from vitbench.records.types import EpochRow, LabelScore, StackReport, Status, TrialOutcome

ROOT = Path(__file__).parents[2]


def outcome() -> TrialOutcome:
    score = LabelScore(
        label="a",
        train_images=4,
        train_positives=2,
        val_images=3,
        val_positives=1,
        test_images=5,
        test_positives=2,
        test_bce=0.5,
        test_accuracy=0.8,
    )
    return TrialOutcome(
        trial_id="t",
        stack_id="s",
        status=Status.DIVERGED,
        epochs=3,
        val_loss=math.inf,
        labels=(score,),
    )


def test_what_a_worker_reports_comes_back_from_json() -> None:
    """Also through real JSON, with a status as text and numbers that are not finite."""
    values = dict.fromkeys(("train_loss", "val_loss", "test_loss"), 0.25)
    values |= dict.fromkeys(("train_accuracy", "val_accuracy", "test_accuracy"), 0.5)
    row = EpochRow(trial_id="t", epoch=3, epoch_s=1.5, **values)
    report = StackReport(epoch=3, rows=(row,), outcomes=(outcome(),), traceback="why")
    again = StackReport.from_json(json.loads(json.dumps(report.to_json())))
    assert again == report
    assert again.outcomes[0].status is Status.DIVERGED


def test_every_state_is_one_kind_of_end() -> None:
    """Done, failed, paused, or none at all; a new state must be sorted into one."""
    kinds = {
        status: (status.is_done, status.is_failure, status.is_pause)
        for status in Status
        if status not in (Status.PLANNED, Status.RUNNING)
    }
    assert all(sum(kind) == 1 for kind in kinds.values()), kinds
    for status in (Status.PLANNED, Status.RUNNING):
        assert not (status.is_done or status.is_failure or status.is_pause)
    assert Status("gave_up").is_pause and all(status.meaning for status in Status)
    assert f"{Status.OOM}" == "oom" and json.dumps(Status.OOM) == '"oom"'


def test_columns_follow_from_a_type() -> None:
    """Name, pandas type and words of each annotated field; the others are no columns."""
    columns = {column.name: column for column in columns_of(TrialOutcome)}
    assert (columns["best_epoch"].dtype, columns["best_val_loss"].dtype) == ("Int64", "float64")
    assert columns["status"].dtype == "string"
    assert columns["error"].meaning == "cause of a crash"
    fields = [field.name for field in dataclasses.fields(TrialOutcome)]
    assert [*TRIAL_COLUMNS, "labels"] == fields


def test_mypy_sees_a_misspelt_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read or written, a name that is no field is an error before anything runs."""
    file = tmp_path / "use.py"
    file.write_text(
        "from vitbench.records.types import Status, TrialOutcome\n"
        "outcome = TrialOutcome(trial_id='t', status=Status.FINISHED, best_val_loss=0.1)\n"
        "print(outcome.best_val_loss)\n"
        "print(outcome.best_loss_val)\n"
        "TrialOutcome(trial_id='t', status=Status.FINISHED, val_los=0.1)\n"
        "print(Status.FINISHD)\n"
    )
    monkeypatch.chdir(ROOT)
    # Strict by pyproject. Other modules are left out: where lint has cached nothing, reading them
    # all takes half a minute.
    alone = ["--follow-imports=skip", f"--cache-dir={tmp_path / 'cache'}"]
    found, _, code = api.run([*alone, str(file), "vitbench/records/types.py"])
    errors = [line.split(":")[1] for line in found.splitlines() if ": error: " in line]
    assert code == 1
    assert errors == ["4", "5", "6"], found
