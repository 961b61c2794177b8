"""What a person sees between the end of training and the report."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vitbench.terminal import stages


def test_a_pipe_gets_one_line_per_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts do not flood a log: the next one comes when twenty seconds have gone."""
    clock = [100.0]
    monkeypatch.setattr(stages.time, "monotonic", lambda: clock[0])
    written = io.StringIO()
    with stages.Stages(Console(file=written, width=40)) as shown:
        for done in range(3):
            shown.now("attention maps", done, 3)
        clock[0] += 21
        shown.now("attention maps", 3, 3)
        shown.now("figures and report")
    assert written.getvalue().splitlines() == [
        "attention maps: 0/3",
        "attention maps: 3/3",
        "figures and report",
    ]


def test_a_terminal_gets_one_line_that_changes() -> None:
    """Every count is shown, and the line is gone at the end."""
    written = io.StringIO()
    with stages.Stages(Console(file=written, force_terminal=True, width=40)) as shown:
        shown.now("attention maps", 2, 3)
        shown.now("figures and report")
    assert written.getvalue().endswith("\x1b[2K")  # erases its line
