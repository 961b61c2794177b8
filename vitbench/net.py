"""How every command ends that does not end by itself: a signal, or what nobody foresaw."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn, ParamSpec

from vitbench.errors import in_a_line

EXIT_UNFORESEEN = 70  # EX_SOFTWARE of sysexits.h
EXIT_PIPE = 141  # as a shell tells SIGPIPE
EXIT_INTERRUPTED = 130  # as a shell tells SIGINT; here of SIGTERM, too
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
P = ParamSpec("P")


def net(main: Callable[P, int]) -> Callable[P, int]:
    """Let a command end with one line and code 70 where it would show a traceback.

    The traceback goes into a file, which the line names. With VITBENCH_DEBUG set it is shown as
    Python does. SIGTERM is what Ctrl-C is: a KeyboardInterrupt, and code 130.
    """

    @functools.wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            with handled_by(signal.default_int_handler):
                code = main(*args, **kwargs)
            sys.stdout.flush()
            return code
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _reader_left():
                return EXIT_PIPE
            if os.environ.get("VITBENCH_DEBUG"):
                raise
            print(f"vitbench failed: {in_a_line(error)}", _log(), file=sys.stderr)
            return EXIT_UNFORESEEN

    return guarded


def run_as_process(main: Callable[[], int]) -> NoReturn:
    """End this process with a command's exit code, which no later signal changes."""
    end_at_signals()
    code = main()
    for number in _SIGNALS:
        signal.signal(number, lambda *_: os._exit(code))
    sys.exit(code)


def end_at_signals() -> None:
    """Let Ctrl-C and SIGTERM end this process at once, with a line, while nothing is started.

    For imports, which an exception at any place leaves in halves.
    """
    for number in _SIGNALS:
        signal.signal(number, end_at_once)


def end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """Handle a signal so."""
    os.write(2, b"interrupted before anything was started\n")
    os._exit(EXIT_INTERRUPTED)


@contextlib.contextmanager
def handled_by(handle: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Hand Ctrl-C and SIGTERM to a function; the handlers from before come back at the end.

    Does nothing outside of the main thread, which alone may.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ended_with(words: str) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a command at once, with these words, where nothing is to be lost.

    Python drops an exception that meets a finalizer. A program that calls us gets its exception.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os.write(2, f"{words}\n".encode())
        os._exit(EXIT_INTERRUPTED)

    is_command = signal.getsignal(signal.SIGTERM) is signal.default_int_handler  # see `net`
    with handled_by(end) if is_command else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def held() -> Iterator[list[int]]:
    """Keep Ctrl-C and SIGTERM back until the block is over; a second one ends the process at once.

    For what an exception at any place leaves in halves: importing, starting and ending Ray. The
    block is given the signals that came.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            os._exit(EXIT_INTERRUPTED)
        came.append(number)

    try:
        with handled_by(note):
            yield came
    finally:
        if came:
            signal.raise_signal(came[0])


def _reader_left() -> bool:
    """Whether nobody reads standard output any more, as after `vitbench ls | head`."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    left = any(event & select.POLLERR for _, event in poll.poll(0))
    if left:  # what is still to be flushed at the end goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return left


def _log() -> str:
    """Write the traceback into a new file; returns where it is."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="vitbench-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write(f"{' '.join(sys.argv)}\n{Path.cwd()}\n{traceback.format_exc()}")
    except OSError as error:
        return f"(no log could be written: {error}; VITBENCH_DEBUG=1 shows more)"
    return f"(this is a mistake of vitbench; the full log: {file.name})"
