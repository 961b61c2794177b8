"""The last resort of every command: what nobody foresaw is one line, and a log to send."""

from __future__ import annotations

import functools
import os
import select
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from vitbench.errors import in_a_line

EXIT_UNFORESEEN = 70  # EX_SOFTWARE of sysexits.h
EXIT_PIPE = 141  # as a shell tells SIGPIPE
P = ParamSpec("P")


def net(main: Callable[P, int]) -> Callable[P, int]:
    """Let a command end with one line and code 70 where it would show a traceback.

    The traceback goes into a file, which the line names. With VITBENCH_DEBUG set it is shown as
    Python does.
    """

    @functools.wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            code = main(*args, **kwargs)
            sys.stdout.flush()
            return code
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _reader_left():
                return EXIT_PIPE
            if os.environ.get("VITBENCH_DEBUG"):
                raise
            print(f"vitbench failed: {in_a_line(error)}", _log(), file=sys.stderr)
            return EXIT_UNFORESEEN

    return guarded


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
