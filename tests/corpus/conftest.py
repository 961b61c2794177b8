"""Counts the cases of each corpus as they are collected, before any is deselected."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest

_cases: Counter[str] = Counter()
_numbers = itertools.count()


@pytest.fixture(scope="session")
def folder_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the folders of all cases."""
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture
def tmp_path(folder_of_all: Path) -> Path:
    """An empty folder; pytest's own turns a link round for each, a fifth of a case's time."""
    made = folder_of_all / str(next(_numbers))
    made.mkdir()
    return made


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note the file of a case."""
    _cases[item.path.name] += 1


@pytest.fixture
def cases() -> Counter[str]:
    """Cases by file."""
    return _cases
