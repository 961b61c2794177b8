"""Contenders that take turns: A B C A B C, each in a process of its own.

A process of its own gives each contender its own allocator, thread pool and CUDA context, so that
its peak memory is its own and nothing of one run disturbs the next; the others wait on a pipe, at
no cost, while one takes its turn. Ratios are taken within a round, so a machine that slows down for
a while slows down both sides.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from vitbench.errors import in_a_line

logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 900  # a compiled peer takes minutes before its first round


@dataclass(frozen=True)
class Contender:
    """One side of a comparison.

    Attributes:
        name: the row's name in table and figure.
        entry: `module:function`; the function is called with a Turns and the settings.
        settings: what the function gets; plain values, they travel to another process.
        copies: processes that take each turn together (their rates are summed).
        env: environment variables that must stand before the process starts.
    """

    name: str
    entry: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    copies: int = 1
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Row:
    """What one contender did.

    Attributes:
        rates: units a second, one per counted round.
        peak_gib: peak memory beyond that of the imports; of the GPU where one is used.
        parameters: of one model.
        error: why it could not be measured; empty when it was.
    """

    name: str
    rates: list[float] = field(default_factory=list)
    peak_gib: float | None = None
    parameters: int | None = None
    note: str = ""
    error: str = ""

    @property
    def median(self) -> float:
        """The middle rate, units a second."""
        return statistics.median(self.rates)

    def ratio_to(self, other: Row) -> float:
        """Median over the rounds of this rate divided by the other's in the same round."""
        return statistics.median(
            mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=True)
        )


class Turns:
    """A contender's end of the pipe: wait for a turn, do the work, say how much it was."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._baseline_gib = 0.0
        self._facts: dict[str, Any] = {}

    def ready(self) -> None:
        """Call once, after the imports: memory counts from here."""
        self._baseline_gib = _memory_gib("VmRSS")

    def state(self, **facts: Any) -> None:
        """Facts for the row: `parameters`, `note`."""
        self._facts.update(facts)

    def wait(self) -> bool:
        """Block until it is this contender's turn; False when the contest is over."""
        try:
            return bool(self._pipe.recv())
        except EOFError:  # the other side is gone: nobody waits for a result
            return False

    def done(self, units: float, seconds: float) -> None:
        """End the turn: so many images or trials in so many seconds."""
        self._pipe.send(("round", units, seconds))

    def take(self, units: float, work: Callable[[int], None]) -> None:
        """Take every turn of the contest: `work(number)`, from 1, does so many units of work."""
        number = 0
        while self.wait():
            number += 1
            start_s = time.perf_counter()
            work(number)
            self.done(units, time.perf_counter() - start_s)

    def finish(self) -> None:
        """Send the peak memory; called when the contender's function has returned."""
        peak_gib = _memory_gib("VmHWM") - self._baseline_gib
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            peak_gib = torch.cuda.max_memory_reserved() / 1024**3
        self._pipe.send(("end", {"peak_gib": peak_gib, **self._facts}))

    def fail(self, error: BaseException) -> None:
        """Send why this contender cannot go on."""
        logger.debug("%s", traceback.format_exc())
        self._pipe.send(("error", in_a_line(error)))


def _memory_gib(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process; ru_maxrss would hold its parent's, too."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024**2
    raise RuntimeError(f"/proc/self/status has no {field}")


def serve(pipe: Connection, entry: str, settings: Mapping[str, Any]) -> None:
    """The body of a contender's process."""
    turns = Turns(pipe)
    try:
        module, function = entry.split(":")
        getattr(importlib.import_module(module), function)(turns, **settings)
        turns.finish()
    except BrokenPipeError:
        pass  # the contest ended without us
    except Exception as error:
        turns.fail(error)


class _Side:
    """The contest's end: the processes of one contender."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.row = Row(contender.name)
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        context = multiprocessing.get_context("spawn")
        saved = {name: os.environ.get(name) for name in contender.env}
        os.environ.update(contender.env)
        try:
            for _ in range(contender.copies):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=serve,
                    args=(theirs, contender.entry, dict(contender.settings)),
                    name=contender.name,
                    daemon=False,  # a DataLoader's workers are children of this process
                )
                process.start()
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(process)
        finally:
            for name, value in saved.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def turn(self) -> float | None:
        """Let it take a turn; returns units a second, or None when it has failed."""
        for pipe in self._pipes:
            # A process that died before its first turn has left its reason in the pipe.
            with contextlib.suppress(OSError):
                pipe.send(True)
        try:
            answers = [self._answer(pipe) for pipe in self._pipes]
        except (EOFError, OSError):
            self.row.error = "the process died (out of memory?)"
            return None
        for kind, *rest in answers:
            if kind == "error":
                self.row.error = rest[0]
                return None
        # All copies together: what they did, in the time that the slowest of them took.
        return float(sum(a[1] for a in answers) / max(a[2] for a in answers))

    def _answer(self, pipe: Connection) -> tuple[Any, ...]:
        if not wait([pipe], timeout=_START_TIMEOUT_S):
            return ("error", f"no answer for {_START_TIMEOUT_S} s")
        answer: tuple[Any, ...] = pipe.recv()
        return answer

    def close(self) -> None:
        """End the processes and take down their peak memory (the sum over the copies)."""
        peaks = []
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            try:
                if not self.row.error:
                    pipe.send(False)
                    kind, facts = self._answer(pipe)[:2]
                    if kind == "end":
                        peaks.append(facts.pop("peak_gib"))
                        for name, value in facts.items():
                            setattr(self.row, name, value)
                    else:
                        self.row.error = facts
            except (EOFError, OSError):
                self.row.error = self.row.error or "the process died at the end"
            pipe.close()
            process.join(timeout=20)
            if process.is_alive():
                process.terminate()
                process.join()
        self.row.peak_gib = sum(peaks) if peaks else None


def run(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    warmup: int,
    on_progress: Callable[[str], None] = lambda message: None,
) -> list[Row]:
    """Let the contenders take turns; returns their rows in the order given.

    Args:
        rounds: counted turns of each contender.
        warmup: turns before, which are not counted (imports, first allocations, compilation).
        on_progress: gets one short line per turn.
    """
    sides: list[_Side] = []
    try:
        for contender in contenders:
            sides.append(_Side(contender))
        for number in range(1 - warmup, rounds + 1):
            for side in sides:
                if side.row.error:
                    continue
                start_s = time.perf_counter()
                rate = side.turn()
                which = f"round {number}/{rounds}" if number > 0 else "warm-up"
                if rate is None:
                    on_progress(f"{which}  {side.contender.name}: {side.row.error}")
                    continue
                took_s = time.perf_counter() - start_s
                on_progress(f"{which}  {side.contender.name}: {rate:,.1f}/s ({took_s:.1f} s)")
                if number > 0:
                    side.row.rates.append(rate)
    finally:
        for side in sides:
            side.close()
    return [side.row for side in sides]
