"""Wording that messages of all commands share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, or None if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'depth'?`, or the list of what there is."""
    names = list(known)
    close = nearest(name, names)
    return f"did you mean '{close}'?" if close else f"use one of {', '.join(names)}"
