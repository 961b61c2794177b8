"""Tables follow from the ledger alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny

from vitbench.errors import UserError
from vitbench.plan import StackPlan
from vitbench.records import tables
from vitbench.records.history import History
from vitbench.records.ledger import Ledger
from vitbench.records.rows import EPOCH_COLUMNS, TRIAL_COLUMNS
from vitbench.tuning.observers import planned_rows

METRICS = ("train_loss", "val_loss", "test_loss", "train_accuracy", "val_accuracy", "test_accuracy")


def epoch_row(trial_id: str, epoch: int, value: float) -> dict[str, Any]:
    return {"trial_id": trial_id, "epoch": epoch, "epoch_s": 1.0, **dict.fromkeys(METRICS, value)}


def stack() -> StackPlan:
    return tiny.plan({"lr": 0.1}, {"lr": 0.2})


def test_contract_columns_stand_in_order(tmp_path: Path) -> None:
    """The names that users and later versions rely on."""
    plan = stack()
    with Ledger(tmp_path / tables.LEDGER) as out:
        out.extend("trial", planned_rows(plan, 1))
    trials, epochs = tables.write(tmp_path)
    assert tuple(trials.columns) == TRIAL_COLUMNS
    assert tuple(epochs.columns) == EPOCH_COLUMNS
    assert TRIAL_COLUMNS[:13] == (
        *("trial_id", "stack_id", "status", "dataset", "lr", "seed", "weight_decay"),
        *("patch_grid", "depth", "heads", "width", "mlp", "parameters"),
    )
    assert list(trials["status"]) == ["planned", "planned"]
    again = pd.read_parquet(tmp_path / "trials.parquet")
    pd.testing.assert_frame_equal(again, trials, check_dtype=False)
    assert list(pd.read_csv(tmp_path / "trials.csv")["lr"]) == [0.1, 0.2]


def test_a_repeated_epoch_replaces_the_one_before(tmp_path: Path) -> None:
    """A resumed run sends some epochs again; each counts once, the last one stands."""
    plan = stack()
    first = plan.members[0].trial_id
    with Ledger(tmp_path / tables.LEDGER) as out:
        out.extend("trial", planned_rows(plan, 1))
        out.extend("epoch", [epoch_row(first, 1, 0.9), epoch_row(first, 2, 0.8)])
        out.extend("epoch", [epoch_row(first, 2, 0.7)])
    trials, epochs = tables.build(tmp_path)
    assert list(epochs["epoch"]) == [1, 2]
    assert list(epochs["train_loss"]) == [0.9, 0.7]
    assert trials.loc[0, "epochs"] == 2  # a running trial shows how far it is
    assert list(trials["status"]) == ["running", "planned"]


def test_growing_tables_are_those_of_the_whole_ledger(tmp_path: Path) -> None:
    """Built after every line, and read on from there; begun again where the file is another."""
    plan = stack()
    one, two = (member.trial_id for member in plan.members)
    with Ledger(tmp_path / "whole.jsonl") as out:
        out.extend("trial", planned_rows(plan, 1))
        out.extend("epoch", [epoch_row(one, 1, 0.9), epoch_row(two, 1, 0.8)])
        out.append("decided", precision="float32", because="no AMX")
        out.extend("epoch", [epoch_row(one, 2, 0.7), epoch_row(one, 2, 0.6)])
        out.append("outcome", trial_id=one, status="interrupted", epochs=2)
        out.extend("trial", planned_rows(plan, 1)[:1])
        out.append("outcome", trial_id=one, status="finished", epochs=3)
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    record, growing = tmp_path / tables.LEDGER, tables.Growing(tmp_path)

    def check() -> None:
        for found, whole in zip(growing.build(), tables.build_all(tmp_path), strict=True):
            pd.testing.assert_frame_equal(found, whole)

    for number, line in enumerate(lines):
        record.write_bytes(b"".join(lines[:number]) + line[:9])  # that one is being written
        check()
    record.write_bytes(b"".join(lines))
    check()
    assert growing.build()[0]["status"].tolist() == ["finished", "running"]
    record.write_bytes(b"".join(lines[:4]))  # shorter: put back from a copy
    check()
    (tmp_path / "mended").write_bytes(b"".join(lines))  # as long or longer, but another file
    (tmp_path / "mended").replace(record)
    check()
    record.write_bytes(b"".join(lines) + b"broken\n")
    with pytest.raises(UserError, match=f":{len(lines) + 1}: is not a whole line"):
        growing.build()
    record.write_bytes(b"".join(lines) + lines[-1])
    check()


def test_a_resumed_trial_has_no_end(tmp_path: Path) -> None:
    """`interrupted` does not stand once the trial has been planned anew."""
    plan = stack()
    ids = [member.trial_id for member in plan.members]
    with Ledger(tmp_path / tables.LEDGER) as out:
        out.extend("trial", planned_rows(plan, 1))
        out.append("outcome", trial_id=ids[0], status="interrupted", epochs=1)
        out.append("outcome", trial_id=ids[1], status="finished", epochs=3)
        out.extend("trial", planned_rows(plan, 1)[:1])
    trials, _ = tables.build(tmp_path)
    assert dict(zip(trials["trial_id"], trials["status"], strict=True)) == {
        ids[0]: "planned",
        ids[1]: "finished",
    }


def test_history_counts_what_was_spent(tmp_path: Path) -> None:
    """Budgets go on counting after a resume: epochs once, stacks' seconds once per stack."""
    plan = stack()
    a, b = (member.trial_id for member in plan.members)
    with Ledger(tmp_path / tables.LEDGER) as out:
        out.append("run", argv=[])
        out.extend("trial", planned_rows(plan, 1))
        out.extend("epoch", [epoch_row(a, 1, 0.9), epoch_row(b, 1, 0.9)])
        out.extend("epoch", [epoch_row(a, 1, 0.9)])
        out.append("outcome", trial_id=a, status="finished")
        out.append("outcome", trial_id=b, status="interrupted")
    history = History.read(tmp_path / tables.LEDGER)
    assert history.epochs_trained == 2
    assert history.stack_seconds == 1.0
    assert history.is_done(a) and not history.is_done(b)
    assert history.stacks == {plan.stack_id: [a, b]}


def test_history_has_the_last_row_of_each_epoch(tmp_path: Path) -> None:
    """Kept in compact form, given as typed rows; NaN where the ledger has it."""
    (a, _) = (member.trial_id for member in stack().members)
    with Ledger(tmp_path / tables.LEDGER) as out:
        out.append("run", argv=[])
        out.extend("epoch", [epoch_row(a, 2, 0.9), epoch_row(a, 1, math.nan)])
        out.extend("epoch", [epoch_row(a, 2, 0.7)])
    history = History.read(tmp_path / tables.LEDGER)
    rows = history.rows(a)
    assert sorted(rows) == [1, 2] and rows[2].to_json() == epoch_row(a, 2, 0.7)
    assert math.isnan(rows[1].val_loss)
    assert history.rows("another") == {}


def test_an_epoch_that_was_not_evaluated_is_no_divergence(tmp_path: Path) -> None:
    """None beside a training loss, NaN beside none; a partial table has the last evaluation."""
    plan = stack()
    (a, b) = (member.trial_id for member in plan.members)
    evaluated = ("val_loss", "test_loss", "val_accuracy", "test_accuracy")
    passed = {k: v for k, v in epoch_row(a, 2, 0.7).items() if k not in evaluated}
    with Ledger(tmp_path / tables.LEDGER) as out:
        out.append("run", argv=[])
        out.extend("trial", planned_rows(plan, 1))
        out.extend("epoch", [epoch_row(a, 1, 0.9), passed, epoch_row(b, 1, math.nan)])
    history = History.read(tmp_path / tables.LEDGER)
    assert history.rows(a)[2].val_loss is None and history.rows(a)[2].train_loss == 0.7
    assert math.isnan(history.rows(b)[1].val_loss)
    trials, epochs = tables.build(tmp_path)
    assert list(tables.not_evaluated(epochs)) == [False, True, False]
    assert (trials["epochs"][0], trials["train_loss"][0], trials["val_loss"][0]) == (2, 0.7, 0.9)


def test_a_checkpoint_that_was_removed_changes_nothing_else(tmp_path: Path) -> None:
    """Retention adds a line to the ledger of a trial that has ended long before."""
    with Ledger(tmp_path / tables.LEDGER) as out:
        out.append("run", argv=[])
        end = {"status": "finished", "checkpoint": "checkpoints/a/best", "best_val_loss": 0.5}
        out.append("outcome", trial_id="a", **end)
        out.append("outcome", trial_id="a", checkpoint=None)
    outcome = History.read(tmp_path / tables.LEDGER).outcomes["a"]
    assert (outcome.status, outcome.checkpoint, outcome.best_val_loss) == ("finished", None, 0.5)


def test_the_csv_of_epochs_says_what_the_table_says(tmp_path: Path) -> None:
    """Written by another library than the others: the same numbers, lists as Python writes them."""
    (a, b) = (member.trial_id for member in stack().members)
    with Ledger(tmp_path / tables.LEDGER) as out:
        out.append("run", argv=[])
        out.extend("trial", planned_rows(stack(), 1))
        out.extend("epoch", [{**epoch_row(a, 1, 0.1 + 0.2), "grad_norm": [0.5, 1e-7]}])
        out.extend("epoch", [epoch_row(b, 1, math.nan), epoch_row(a, 2, 1e-30)])
    _, epochs = tables.write(tmp_path)
    read = pd.read_csv(tmp_path / "epochs.csv", dtype={"trial_id": "string"})
    assert list(read) == list(epochs)
    for name in ("train_loss", "val_loss", "epoch_s"):
        assert str(read[name].astype(float).tolist()) == str(epochs[name].tolist())
    assert read["grad_norm"].astype(object).where(read["grad_norm"].notna(), None).tolist() == [
        "[0.5, 1e-07]", None, None,
    ]  # fmt: skip
    assert epochs["grad_norm"].tolist() == [[0.5, 1e-7], None, None]
