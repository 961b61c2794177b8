"""Quantities in words."""

from __future__ import annotations

import pytest

from vitbench.words import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (42, "42 s"),
        (59.7, "1 min 0 s"),
        (119.6, "2 min 0 s"),
        (200, "3 min 20 s"),
        (3599.9, "1 h 0 min"),
        (5 * 3600 + 12 * 60 + 40, "5 h 12 min"),
        (6.4 * 86400, "6.4 days"),
    ],
)
def test_a_duration_reads_as_a_person_says_it(seconds: float, text: str) -> None:
    """Two units at most, and never 60 of the smaller one."""
    assert duration(seconds) == text
