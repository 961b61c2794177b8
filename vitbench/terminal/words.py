"""Quantities as a person writes them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Write a length of time as a person would: 42 s, 3 min 20 s, 5 h 12 min, 6.4 days."""
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest_s} s"
    if minutes < 60:
        return f"{minutes} min {rest_s} s"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds / 86400:.1f} days"
