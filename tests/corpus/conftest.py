"""Counts the cases of each corpus as they are collected, before any is deselected."""

from __future__ import annotations

from collections import Counter

import pytest

_cases: Counter[str] = Counter()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note the file of a case."""
    _cases[item.path.name] += 1


@pytest.fixture
def cases() -> Counter[str]:
    """Cases by file."""
    return _cases
