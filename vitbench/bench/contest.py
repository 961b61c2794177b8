"""Contenders that take turns: A B C A B C, each in a process of its own.

A process of its own gives each contender its own allocator, thread pool and CUDA context, so that
its peak memory is its own and nothing of one run disturbs the next; the others wait on a pipe, at
no cost, while one takes its turn. Ratios are taken within a round, so a machine that slows down for
a while slows down both sides.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from vitbench.errors import in_a_line

_TIMEOUT_S = 900  # a compiled peer takes minutes before its first round
_LATE = f"no answer for {_TIMEOUT_S} s"


@dataclass(frozen=True)
class Contender:
    """One side of a comparison.

    Attributes:
        name: the row's name in table and figure.
        function: called with a Turns and the settings, in a process of its own.
        settings: plain values, they travel to another process.
        copies: processes that take each turn together (their rates are summed).
        env: environment variables that must stand before the process starts.
    """

    name: str
    function: Callable[..., None]
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
        return statistics.median(a / b for a, b in zip(self.rates, other.rates, strict=True))


class Turns:
    """A contender's end of the pipe: wait for a turn, do the work, say how much it was.

    Attributes:
        facts: for the row, by the names of its attributes: `parameters`, `note`.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._memory = Memory()
        self.facts: dict[str, Any] = {}

    def ready(self) -> None:
        """Call once, after the imports: memory counts from here."""
        self._memory = Memory()

    def wait(self) -> bool:
        """Block until it is this contender's turn; False when the contest is over."""
        try:
            return bool(self._pipe.recv())
        except EOFError:  # the other side is gone: nobody waits for a result
            return False

    def done(self, units: float, seconds: float) -> None:
        """End the turn: so many images or trials in so many seconds."""
        self._pipe.send((units, seconds))

    def take(self, units: float, work: Callable[[int], float | None]) -> None:
        """Take every turn of the contest: `work(number)`, from 1, does so many units of work.

        It returns the seconds that count, or None where all of its time does.
        """
        number = 0
        while self.wait():
            number += 1
            start_s = time.perf_counter()
            seconds = work(number)
            self.done(units, seconds or time.perf_counter() - start_s)

    def peak_gib(self) -> float:
        """The most memory held since `ready`, see `Memory`."""
        return self._memory.peak_gib()


class Memory:
    """Peak memory of this process beyond what it holds when this is made."""

    def __init__(self) -> None:
        self._before_gib = _gib("VmRSS")

    def peak_gib(self) -> float:
        """The most that was held since; on a GPU what the allocator reserved."""
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            return float(torch.cuda.max_memory_reserved() / 1024**3)
        return _gib("VmHWM") - self._before_gib


def _gib(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process; ru_maxrss would hold its parent's, too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(rf"{field}:\s*(\d+) kB", status)[0]) / 1024**2


def _serve(pipe: Connection, contender: Contender) -> None:
    """The body of a contender's process; it ends with its facts, or with its error as text."""
    turns = Turns(pipe)
    try:
        contender.function(turns, **contender.settings)
        pipe.send({"peak_gib": turns.peak_gib(), **turns.facts})
    except BrokenPipeError:
        pass  # the contest ended without us
    except Exception as error:
        pipe.send(in_a_line(error))


class _Side:
    """The contest's end: the processes of one contender."""

    def __init__(self, contender: Contender) -> None:
        self.row = Row(contender.name)
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        context = multiprocessing.get_context("spawn")
        before = dict(os.environ)
        os.environ.update(contender.env)
        try:
            for _ in range(contender.copies):
                ours, theirs = context.Pipe()
                # Not a daemon: a DataLoader's workers are children of this process.
                process = context.Process(target=_serve, args=(theirs, contender), daemon=False)
                process.start()
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(process)
        finally:
            os.environ.clear()
            os.environ.update(before)

    def ask(self, go_on: bool) -> list[Any]:
        """Give every copy a turn, or send it home; returns what each of them answers.

        Nothing where one of them failed: then the row has the reason.
        """
        for pipe in self._pipes:
            # A process that died before its first turn has left its reason in the pipe.
            with contextlib.suppress(OSError):
                pipe.send(go_on)
        try:
            in_time = all(pipe.poll(_TIMEOUT_S) for pipe in self._pipes)
            answers = [p.recv() for p in self._pipes] if in_time else [_LATE]
        except (EOFError, OSError):
            answers = ["the process died (out of memory?)"]
        self.row.error = next((answer for answer in answers if isinstance(answer, str)), "")
        return [] if self.row.error else answers

    def close(self) -> None:
        """End the processes and take down their facts and the sum of their peak memory."""
        if not self.row.error and (ends := self.ask(False)):
            peak_gib = sum(end["peak_gib"] for end in ends)
            vars(self.row).update({**ends[0], "peak_gib": peak_gib})
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            process.join(timeout=20)
            if process.is_alive():
                process.terminate()
                process.join()


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
            which = f"round {number}/{rounds}" if number > 0 else "warm-up"
            for row, side in [(side.row, side) for side in sides if not side.row.error]:
                start_s = time.perf_counter()
                answers = side.ask(True)
                took_s = time.perf_counter() - start_s
                if row.error:
                    on_progress(f"{which}  {row.name}: {row.error}")
                    continue
                # All copies together: what they did, in the time that the slowest of them took.
                units, seconds = zip(*answers, strict=True)
                rate = float(sum(units) / max(seconds))
                on_progress(f"{which}  {row.name}: {rate:,.1f}/s ({took_s:.1f} s)")
                if number > 0:
                    row.rates.append(rate)
    finally:
        for side in sides:
            side.close()
    return [side.row for side in sides]
