"""Quantities in words."""

from __future__ import annotations

import math

import pytest

from vitbench.words import decimal, duration


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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e-05, "0.00003"),
        (0.00012345678, "0.000123457"),
        (-2.5e-7, "-0.00000025"),
        (1e-08, "1e-08"),
        (0.1, "0.1"),
        (256.0, "256"),
        (1e9, "1e+09"),
        (math.inf, "inf"),
    ],
)
def test_small_numbers_read_as_in_a_sweep_file(value: float, text: str) -> None:
    """Learning rates are written without exponents there, and in every claim."""
    assert decimal(value) == text
