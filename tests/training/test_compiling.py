"""When a stack is compiled, that it then trains as before, and what happens where it cannot be."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import tiny
import torch
from torch._inductor import config as inductor

from vitbench.training.engine import EpochReport, fit
from vitbench.training.speedup.compiling import Compiling
from vitbench.training.stack import Stack

IMAGES = tiny.image_set()
CPU = torch.device("cpu")


@dataclass
class Scripted:
    """Stands for a stack: compiling takes a stated time, or fails."""

    compile_s: float | None
    calls: list[str] = field(default_factory=list)

    def compile(self) -> float | None:
        self.calls.append("compile")
        return self.compile_s

    def uncompile(self) -> None:
        self.calls.append("uncompile")


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Compiling, "_known", {})


def after(stack: Scripted, epochs_s: list[float], *, epochs: int, key: str = "a") -> list[str]:
    """What is done with a stack whose epochs take so long, of which there are so many."""
    compiling = Compiling(stack, "auto", on_gpu=True, key=key)
    for number, seconds in enumerate(epochs_s, start=1):
        compiling.epoch_took(seconds, epochs - number)
    return stack.calls


def test_short_trainings_are_never_compiled() -> None:
    """What is left is worth less than compiling takes."""
    assert after(Scripted(60.0), [2.0] * 50, epochs=50) == []


def test_long_trainings_are_compiled_once_and_stay_so_if_that_is_faster() -> None:
    """Two epochs are looked at first; 198 more of 4 s are worth it."""
    assert after(Scripted(60.0), [5.0, 4.0, 3.5, 3.0, 9.0, 9.0], epochs=200) == ["compile"]


def test_what_is_not_faster_is_taken_back() -> None:
    """Judged by the better of two epochs, since the first one captures a graph anew."""
    assert after(Scripted(60.0), [4.0, 4.0, 9.0, 3.99], epochs=200) == ["compile", "uncompile"]
    assert after(Scripted(60.0), [4.0, 4.0, 9.0, 3.0], epochs=200, key="b") == ["compile"]


def test_a_failure_is_not_tried_again() -> None:
    """The stack goes on plain."""
    assert after(Scripted(None), [4.0] * 9, epochs=200) == ["compile"]


def test_the_next_stack_decides_by_what_was_measured() -> None:
    """A quarter faster for 5 s: worth it for trainings that the first guess would leave alone."""
    assert after(Scripted(5.0), [4.0, 4.0, 3.0, 3.0], epochs=200) == ["compile"]
    assert after(Scripted(5.0), [1.0, 1.0], epochs=40) == ["compile"]
    assert after(Scripted(5.0), [1.0, 1.0], epochs=20) == []
    assert after(Scripted(5.0), [1.0, 1.0], epochs=40, key="another") == []


def test_auto_leaves_a_cpu_alone_and_true_does_not_wait() -> None:
    """On a CPU a run that is resumed repeats its numbers bit for bit."""
    stack = Scripted(1.0)
    compiling = Compiling(stack, "auto", on_gpu=False, key="a")
    for _ in range(3):
        compiling.epoch_took(1e6, 1000)
    assert stack.calls == []
    Compiling(stack, True, on_gpu=False, key="a")
    assert stack.calls == ["compile"]


def losses(compile: bool) -> list[list[float]]:
    found: list[list[float]] = []

    def report(epoch: EpochReport) -> bool:
        found.append([value for row in epoch.rows for value in (row.train_loss, row.val_loss)])
        return True

    plan = tiny.plan({"lr": 3e-3, "seed": 0}, {"lr": 1e-2, "seed": 1}, depth=1, epochs=3)
    fit(plan, IMAGES, device=CPU, report=report, compile=compile)
    return found


@pytest.fixture
def _fresh_compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_stack_trains_as_a_plain_one(_fresh_compiler: None) -> None:
    """Two seeds, so images of its own for each; the last batch of an epoch is a smaller one."""
    plain, compiled = losses(compile=False), losses(compile=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for one, two in zip(plain, compiled, strict=True):
        assert one == pytest.approx(two, rel=1e-4)


def test_where_it_cannot_compile_it_says_so_and_trains(
    _fresh_compiler: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine without a compiler loses speed, nothing else."""
    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(inductor, "fx_graph_cache", False)
    with caplog.at_level(logging.WARNING, logger="vitbench.training.speedup.compiling"):
        assert losses(compile=True) == losses(compile=False)
    assert "training without torch.compile, which is slower" in caplog.text


def test_dropout_is_never_compiled() -> None:
    """Each member draws from a stream of its own, which a compiled graph would not."""
    assert Stack(tiny.plan({}, dropout=0.1), IMAGES, CPU).compile() is None
