"""How many cases there are, and that none of them needs the safety net."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
AT_LEAST = {"test_bad_sweeps.py": 300, "test_bad_data_sets.py": 200, "test_damaged_results.py": 250}


def test_the_corpora_are_as_large_as_the_page_says(cases: Counter[str]) -> None:
    """Each is a file of its own, whose cases are all counted."""
    if not all(cases[file] for file in AT_LEAST):
        pytest.skip("this run did not collect all three files")
    row = re.compile(r"^\|.*\| (\d+) \| `tests/corpus/(\w+\.py)` \|$", re.MULTILINE)
    told = {file: int(count) for count, file in row.findall(PAGE.read_text(encoding="utf-8"))}
    assert told == {file: cases[file] for file in AT_LEAST}
    assert all(told[file] >= least for file, least in AT_LEAST.items())


def test_the_net_is_never_needed() -> None:
    """It is off: a command that meets what it did not foresee raises it, and its case fails."""
    assert os.environ["VITBENCH_DEBUG"]
