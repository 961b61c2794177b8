"""What happens after training, said while it happens."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console

_PLAIN_INTERVAL_S = 20.0


class Stages:
    """On a terminal one line that changes; elsewhere a line per stage, and now and then its count.

    Open it as a context manager; `now` names what is being done.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("") if console.is_terminal else None
        self._stage, self._last_line_s = "", 0.0

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def now(self, stage: str, done: int = 0, of: int = 0) -> None:
        """Say the stage, and how many of its steps are done."""
        text = f"{stage}: {done}/{of}" if of else stage
        if self._status is not None:
            self._status.update(text)
            return
        if stage != self._stage or time.monotonic() - self._last_line_s >= _PLAIN_INTERVAL_S:
            self._stage, self._last_line_s = stage, time.monotonic()
            self._console.print(text, soft_wrap=True, highlight=False, markup=False)
