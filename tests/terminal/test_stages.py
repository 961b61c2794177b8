"""What a person sees between the end of training and the report."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vitbench.terminal import stages
from vitbench.terminal.progress import LiveProgress, Progress, StackView, SweepView


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


def test_what_was_not_looked_at_is_not_nan() -> None:
    """Validation is not looked at in every epoch, and training loss is unknown at the start."""
    view = SweepView(total_stacks=2, known_flops=None, slots=1)
    view.running["a"] = StackView("depth 2", epochs=9, flops=1.0, epoch=1, train_loss=0.5)
    written = io.StringIO()
    plain = Progress(Console(file=written, width=200), view)
    plain._last_line_s = -1e9
    plain._show_running()
    plain.ended("a", ["finished"])
    live = Console(width=200)
    with live.capture() as shown:
        view.running["a"] = StackView("depth 2", epochs=9, flops=1.0, epoch=1, train_loss=0.5)
        live.print(LiveProgress(live, view)._render())
    text = written.getvalue() + shown.get()
    assert "depth 2: epoch 1/9, loss 0.500\n" in text and "nan" not in text
    assert "depth 2: finished at epoch 1, train loss 0.500, 0 s" in text
