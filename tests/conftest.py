"""Settings for all tests."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """torch computes on one thread: on tiny tensors a second one only waits.

    Tests that need no torch are not made to import it.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
