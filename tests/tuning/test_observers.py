"""What a running sweep leaves for others to read."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pandas as pd
import pytest
import tiny

from vitbench.plan import StackPlan
from vitbench.records import tables
from vitbench.records.ledger import Ledger
from vitbench.records.types import StackReport, Status, TrialOutcome
from vitbench.terminal.progress import Progress
from vitbench.tuning import observers
from vitbench.tuning.events import MembersEnded, Round, StackObserver
from vitbench.tuning.observers import LedgerObserver, ProgressObserver, TablesObserver
from vitbench.tuning.recorder import Recorder


def test_tables_are_written_while_the_sweep_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a minute where models have ended, as they are built in the end; seldom where they are
    large, and a disk that is full for a while does not end the sweep.
    """
    now_s, written = [0.0], []
    write = tables.write

    def writes(folder: Path, growing: tables.Growing) -> None:
        written.append(now_s[0])
        now_s[0] += 5.0  # large tables
        if len(written) == 2:
            raise OSError("No space left on device")
        write(folder, growing)

    monkeypatch.setattr(observers.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(tables, "write", writes)
    with Ledger(tmp_path / tables.LEDGER) as ledger:
        watched = TablesObserver(tmp_path)
        for number, ends in enumerate((0.0, 10.0, 90.0, 1200.0, 3000.0)):
            plan = tiny.plan({"seed": number})
            record(LedgerObserver(ledger, lambda plan: 1), watched, plan)
            now_s[0] = max(now_s[0], ends)
            watched.observe(Round())
            if written:
                found = pd.read_parquet(tmp_path / "trials.parquet")
                assert list(found["status"]) == ["finished"] * (5 if len(written) == 3 else 3)
        watched.observe(Round())
    assert written == [90.0, 1200.0, 3000.0]


def record(ledger: LedgerObserver, watched: TablesObserver, plan: StackPlan) -> None:
    """A stack is planned, and its model ends."""
    ledger.plan(plan)
    outcome = TrialOutcome(
        trial_id=plan.members[0].trial_id, stack_id=plan.stack_id, status=Status.FINISHED
    )
    for observer in (ledger, watched):
        observer.observe(MembersEnded(plan, (outcome,)))


def test_what_workers_warn_of_is_written_and_shown_once(tmp_path: Path) -> None:
    """Every stack of a sweep meets the same missing compiler."""
    said: list[str] = []

    class Shown:
        def say(self, text: str) -> None:
            said.append(text)

    with Ledger(tmp_path / tables.LEDGER) as ledger:
        watching: list[StackObserver] = [
            LedgerObserver(ledger, lambda plan: 1),
            ProgressObserver(cast(Progress, Shown()), lambda plan: plan.stack_id),
        ]
        recorder = Recorder(watching[0], watching[1:], lambda plan: None, lambda stack_id: None)
        first, second = tiny.plan({"seed": 0}), tiny.plan({"seed": 1})
        for plan, warnings in ((first, ("slower", "slower")), (second, ("slower", "other"))):
            trial = SimpleNamespace(config={"stack_id": plan.stack_id, "plan": plan.to_json()})
            report = StackReport(epoch=1, warnings=warnings)
            recorder.on_trial_result(0, [], trial, report.to_json())
    assert said == [f"warning: {first.stack_id}: slower", f"warning: {second.stack_id}: other"]
    lines = map(json.loads, (tmp_path / tables.LEDGER).read_text().splitlines())
    told = [(line["stack_id"], line["text"]) for line in lines if line.get("event") == "warning"]
    assert told == [(first.stack_id, "slower"), (second.stack_id, "other")]
