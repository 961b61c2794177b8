"""What Ray costs: the comparison runs the same trials each way, and counts all of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from multiprocessing import Pipe
from pathlib import Path

import pytest

from vitbench.bench import comparisons, ray_sides, session
from vitbench.bench.__main__ import main
from vitbench.bench.contest import Contender, Row, Turns


def test_every_way_trains_the_same_trials_on_the_same_slots() -> None:
    """Those that start Ray Train get fewer: it needs seconds for each."""
    sides = comparisons.overhead_sides(trials=32, train_trials=4, slots=2)
    counts = {side.name: side.settings["trials"] for side in sides}
    assert counts.pop("Ray Train in Ray Tune") == 4
    assert counts.pop("vitbench sweep, DDP") == 4
    assert set(counts.values()) == {32}
    assert {side.settings["slots"] for side in sides} == {2}
    assert all(side.env["RAY_ADDRESS"] == "" for side in sides)


def run_here(
    contenders: Sequence[Contender], *, rounds: int, warmup: int, on_progress: object
) -> list[Row]:
    """Contenders one after the other in this process, on its Ray; what `contest.run` returns."""
    rows = []
    for contender in contenders:
        ours, theirs = Pipe()
        for go_on in [*[True] * (warmup + rounds), False]:
            ours.send(go_on)
        contender.function(Turns(theirs), **contender.settings)
        turns = [ours.recv() for _ in range(warmup + rounds)]
        rates = [units / seconds for units, seconds in turns[warmup:]]
        rows.append(Row(contender.name, rates))
    return rows


@pytest.mark.long
@pytest.mark.ray
def test_overhead_of_a_sweep_is_measured(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner trains its tiny sweep on a local Ray; seconds a trial, less is better."""
    out, sides = tmp_path / "out", comparisons.overhead_sides
    monkeypatch.setattr(
        comparisons, "overhead_sides", lambda trials, train_trials, slots: sides(trials, 1, slots)
    )
    monkeypatch.setattr(session, "run", run_here)
    monkeypatch.setattr(ray_sides, "connect", lambda *_, **__: contextlib.nullcontext())
    argv = ["overhead", "--quick", "--rounds", "1", "--only", "sweep", "--only", "no Ray"]
    assert main([*argv, "--out", str(out)]) == 0
    record = json.loads((out / "overhead.json").read_text(encoding="utf-8"))
    alone, ours, ddp = record["rows"]
    assert not record["higher_is_better"]
    assert 0 < alone["median"] < ours["median"] < 60
    assert ours["note"].startswith("adds ")
    assert ours["median"] < ddp["median"] < 120


def test_trials_whose_process_runs_already_are_told_apart() -> None:
    """Two slots: processes start for 4 s, then each of 8 trials takes a quarter of a second."""
    ends_s = [4.0, 4.1, 4.25, 4.35, 4.5, 4.6, 4.75, 4.85, 5.0, 5.1]
    assert ray_sides.seconds_of_later(ends_s, 2) == pytest.approx(0.25)
    assert ray_sides.seconds_of_later(ends_s[:2], 2) is None


def test_more_workers_than_cores_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is measured."""
    assert main(["scaling", "--workers", "1", "4096"]) == 2
    assert "--workers 4096: each needs a core" in capsys.readouterr().err
