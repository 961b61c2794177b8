"""Wording that messages of all commands share."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable
from decimal import Decimal

# What others call settings of a sweep file.
_OTHER_NAMES = {
    "learning_rate": "lr", "learning_rates": "lr", "layers": "depth", "num_layers": "depth",
    "num_heads": "heads", "hidden_size": "width", "dim": "width", "embed_dim": "width",
    "mlp_dim": "mlp", "num_epochs": "epochs", "optimiser": "optimizer", "wd": "weight_decay",
    "seeds": "seed", "labels": "label", "trials": "suggestions", "patches": "patch_grid",
}  # fmt: skip


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, or None if none is close."""
    names = list(known)
    if (same := _OTHER_NAMES.get(name.lower())) in names:
        return same
    close = difflib.get_close_matches(name, names, n=1)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'depth'?`, or the list of what there is."""
    names = list(known)
    close = nearest(name, names)
    return f"did you mean '{close}'?" if close else f"use one of {', '.join(names)}"


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


def decimal(value: float, digits: int = 6) -> str:
    """A number of so many significant digits as people write it: `0.00003`, not `3e-05`.

    Powers of ten are left where they are shorter to read: 1e-08, 1e+07.
    """
    text = f"{value:.{digits}g}"
    return format(Decimal(text), "f") if "e-" in text and abs(value) >= 1e-7 else text


def slug(name: str) -> str:
    """A part of a file's name for any text: itself where that is one, else with a hash of it."""
    if re.fullmatch(r"[\w][\w.-]{0,59}", name):
        return name
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:40]
    return f"{plain}-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}"


def printable(text: str, keep: str = "") -> str:
    """The text with what no terminal should get, ESC for example, as escapes: `\\x1b`.

    Halves of characters, as names of files that are not UTF-8 have them, are escaped too; the
    characters of `keep` are not.
    """
    return "".join(
        one if one.isprintable() or one in keep else one.encode("unicode_escape").decode()
        for one in text
    )
