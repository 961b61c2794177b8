"""Signals: the first asks, the second stops."""

from __future__ import annotations

import os
import signal

import pytest

from vitbench.tuning.stop import Interrupt


def test_the_first_signal_asks_and_the_second_stops() -> None:
    """Ctrl-C and SIGTERM alike; afterwards the handlers of before are back."""
    before = signal.getsignal(signal.SIGTERM)
    asked: list[bool] = []
    with Interrupt(lambda: asked.append(True)) as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested and asked == [True]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before
