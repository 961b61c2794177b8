"""The referee of the benchmarks: turns interleave, failures stay with the one that failed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vitbench.bench.contest import Contender, Row, Turns, run


def fake(turns: Turns, *, name: str, log: str, units: float = 10.0, ballast_mib: int = 0) -> None:
    """A contender that writes down when it has its turn."""
    turns.facts["parameters"] = 7
    turns.ready()
    ballast = b""
    while turns.wait():
        ballast = ballast or b"1" * (ballast_mib * 1024**2)
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{name}\n")
        turns.done(units, 2.0)


def breaks(turns: Turns, *, at_turn: int) -> None:
    """A contender that raises at its n-th turn (0: before the first)."""
    if at_turn == 0:
        raise ValueError("no such library")
    turns.ready()
    for _ in range(at_turn - 1):
        turns.wait()
        turns.done(1, 1)
    turns.wait()
    raise MemoryError("too large")


def dies(turns: Turns) -> None:
    """A contender that the kernel ends."""
    turns.ready()
    turns.wait()
    os._exit(9)


def reads_environment(turns: Turns) -> None:
    """Reports a variable that must stand before the process starts."""
    turns.facts["note"] = os.environ.get("VITBENCH_TEST_VARIABLE", "absent")
    turns.ready()
    while turns.wait():
        turns.done(1, 1)


def contender(name: str, function: Callable[..., None], /, **settings: object) -> Contender:
    return Contender(name, function, settings)


def test_turns_interleave_and_the_warm_up_is_not_counted(tmp_path: Path) -> None:
    """A B A B: so that drift of the machine falls on both sides alike."""
    log = str(tmp_path / "turns")
    sides = [contender(name, fake, name=name, log=log) for name in "AB"]
    rows = run(sides, rounds=3, warmup=1)
    assert Path(log).read_text(encoding="utf-8").split() == ["A", "B"] * 4
    assert [row.rates for row in rows] == [[5.0] * 3, [5.0] * 3]
    assert rows[0].parameters == 7


def test_copies_take_their_turn_together_and_their_rates_add_up(tmp_path: Path) -> None:
    """Two processes that do 10 units in 2 s each do 10 a second together."""
    settings = {"name": "A", "log": str(tmp_path / "turns")}
    (row,) = run([Contender("pair", fake, settings, copies=2)], rounds=2, warmup=0)
    assert row.rates == [10.0, 10.0]


def test_peak_memory_is_the_contenders_own(tmp_path: Path) -> None:
    """What one side allocates shows in its row, and not in its neighbour's."""
    log = str(tmp_path / "turns")
    sides = [
        contender("large", fake, name="large", log=log, ballast_mib=300),
        contender("small", fake, name="small", log=log),
    ]
    large, small = run(sides, rounds=1, warmup=0)
    assert large.peak_gib is not None and small.peak_gib is not None
    assert 0.28 < large.peak_gib < 0.4
    assert small.peak_gib < 0.1


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (breaks, {"at_turn": 0}, "no such library"),
        (breaks, {"at_turn": 2}, "MemoryError: too large"),
        (dies, {}, "died"),
    ],
)
def test_one_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, function: Callable[..., None], settings: dict[str, object], message: str
) -> None:
    """An out-of-memory at the largest stack must not cost the rest of the table."""
    start_s = time.perf_counter()
    bad, good = run(
        [
            contender("bad", function, **settings),
            contender("good", fake, name="good", log=str(tmp_path / "turns")),
        ],
        rounds=3,
        warmup=0,
    )
    assert message in bad.error
    assert good.rates == [5.0] * 3
    assert time.perf_counter() - start_s < 30


def test_environment_stands_before_the_process_starts_and_does_not_leak() -> None:
    """Allocator settings are read once, at the start of a process."""
    name = "VITBENCH_TEST_VARIABLE"
    here = Contender("with", reads_environment, env={name: "set"})
    there = Contender("without", reads_environment)
    with_it, without = run([here, there], rounds=1, warmup=0)
    assert (with_it.note, without.note) == ("set", "absent")
    assert name not in os.environ


def test_the_ratio_is_taken_within_each_round() -> None:
    """A machine that halves its speed in the middle leaves the ratio as it was."""
    fast, slow = Row("fast", rates=[20, 10, 10]), Row("slow", rates=[10, 5, 5])
    assert fast.ratio_to(slow) == 2.0
