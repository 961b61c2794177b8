"""What all tests share: one group for the tests that start Ray, and one thread of torch."""

from __future__ import annotations

import sys

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that start Ray one process of their own, so that two never run at once."""
    for item in items:
        if item.get_closest_marker("ray") or item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """torch computes on one thread: on tiny tensors a second one only waits.

    Tests that need no torch are not made to import it.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
