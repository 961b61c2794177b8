"""`vitbench ls`: every run below a folder, its state and its best trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import result_folder

from vitbench.analysis.results import load
from vitbench.commands import ls
from vitbench.records import tables
from vitbench.records.ledger import Ledger


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One run that is complete, one that is not, and one that cannot be read."""
    result_folder.make(tmp_path / "made" / "20260101-000000-aaaa")
    result_folder.make(tmp_path / "made" / "20260102-000000-bbbb", until=2)
    broken = tmp_path / "made" / "20260103-000000-cccc"
    broken.mkdir()
    (broken / "sweep.yaml").write_text("name: made")
    return tmp_path


def listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    assert ls.main([str(folder), "--json"]) == 0
    runs: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return runs


def test_runs_are_listed_with_their_state(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that nobody can read is listed, too, with the reason."""
    complete, part, broken = listed(folder, capsys)
    assert complete["state"] == "complete"
    count = len(load(Path(str(part["path"]))).trials)
    assert part["state"] == f"2 of {count} trials"
    assert str(broken["state"]).startswith("cannot be read: holds no results of a sweep")
    trials = load(Path(str(complete["path"]))).trials
    assert complete["best_val_loss"] == trials["best_val_loss"].min()
    best = trials.sort_values("best_val_loss").iloc[0]
    assert f"learning rate {best['lr']:g}" in str(complete["best"])


def test_a_run_whose_driver_lives_is_running(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told by the lock of its ledger, which a driver that died no longer holds."""
    part = folder / "made" / "20260102-000000-bbbb"
    with Ledger(part / tables.LEDGER):
        assert str(listed(folder, capsys)[1]["state"]).startswith("running, 2 of ")
    assert str(listed(folder, capsys)[1]["state"]).startswith("2 of ")


def test_the_table_has_a_line_per_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths are whole, so that they can be copied."""
    assert ls.main([str(folder)]) == 0
    output = capsys.readouterr().out
    assert all(str(path) in output for path in (folder / "made").iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and what to do; an empty folder is no mistake."""
    assert ls.main([str(tmp_path / "none")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert ls.main([str(tmp_path)]) == 0
    assert "holds no runs yet" in capsys.readouterr().out
