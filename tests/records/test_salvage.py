"""Of a damaged record all whole lines are saved, and the others are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import result_folder

from vitbench.commands import doctor
from vitbench.errors import UserError
from vitbench.records import tables
from vitbench.records.ledger import Ledger
from vitbench.records.salvage import salvage


def test_garbled_lines_are_named_and_the_rest_is_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command; the damaged ledger stays beside, and the next look finds nothing."""
    run = result_folder.make(tmp_path / "run")
    path = run / tables.LEDGER
    before = path.read_bytes()
    lines = before.splitlines(keepends=True)
    for at, garbage in ((5, b"\xff\x00\n"), (40, lines[40][:30] + b"\n"), (41, b"[]\n")):
        lines[at] = garbage
    path.write_bytes(b"".join(lines) + b'{"kind": "ev')
    damaged = path.read_bytes()
    with pytest.raises(UserError, match=r"ledger\.jsonl:6: is not a whole line"):
        tables.build_all(run)
    assert doctor.main([str(run)]) == 0
    said = capsys.readouterr().out
    assert "garbled lines of the ledger were taken out: 6, 41, 42" in said
    (kept,) = run.glob("ledger.jsonl.damaged-*")
    assert kept.read_bytes() == damaged and kept.name in said
    lost = json.loads(before.splitlines()[5])
    assert lost["kind"] == "trial", "without it nobody knows the settings of its rows"
    assert path.read_bytes().splitlines() == [
        line
        for n, line in enumerate(damaged.splitlines())
        if n not in (5, 40, 41) and f'"trial_id": "{lost["trial_id"]}"'.encode() not in line
    ]
    trials, _ = tables.write(run)
    assert lost["trial_id"] not in set(trials["trial_id"]) and trials["lr"].notna().all()
    assert salvage(run).garbled == [] and len(list(run.glob("*.damaged-*"))) == 1
    tables.build_all(run)


def test_what_cannot_be_saved_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No ledger, nothing whole, or a driver that is writing it: refused, nothing changed."""
    assert doctor.main([str(tmp_path)]) == 1
    assert "there is no ledger" in capsys.readouterr().out
    path = tmp_path / tables.LEDGER
    path.write_bytes(b"garbage\n" * 3)
    with pytest.raises(UserError, match="none of its 3 lines is whole"):
        salvage(tmp_path)
    assert path.read_bytes() == b"garbage\n" * 3
    run = result_folder.make(tmp_path / "run")
    with Ledger(run / tables.LEDGER), pytest.raises(UserError, match="a sweep is writing it"):
        salvage(run)
