"""Sentences from findings, by the jinja2 macros in `sentences/`; no sentence is made elsewhere.

A macro has the name of a finding's kind and takes the finding. Adding a kind is adding a macro.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import MIN_SEEDS_TO_CLAIM, MIN_UNITS, smallest_p
from vitbench.words import decimal

if TYPE_CHECKING:
    from vitbench.analysis.findings.claims import Verdict

_FOLDER = Path(__file__).parent / "sentences"
_MAX_NAMED = 6
_SPLITS = {"val": "validation", "test": "test", "train": "training"}


def sentence(finding: Finding) -> str:
    """The finding in words, on one line.

    Raises:
        KeyError: if no macro has the name of its kind.
    """
    return _line(_macro(finding.kind)(finding))


def short(finding: Finding) -> str:
    """The finding in one short sentence; empty where it is too little for one."""
    return _line(_macro(f"short_{finding.kind}")(finding))


def claim_sentence(verdict: Verdict) -> str:
    """What the results say of a claim, on one line."""
    return _line(_macro("claim")(verdict))


def claim_why(verdict: Verdict) -> str:
    """What was compared, or why the claim was not tested."""
    return _line(_macro("claim_why")(verdict))


def _line(text: str) -> str:
    """One line that begins with a capital, if not with a name of code; lr is spelled out."""
    line = spelled_out(" ".join(text.split()))
    return line if re.match(r"\w*[._]\w", line) else line[:1].upper() + line[1:]


def spelled_out(text: str) -> str:
    """`lr 0.003` as `learning rate 0.003`; `train.lr`, a key of the file, stays."""
    return re.sub(r"(?<!\.)\blr\b", "learning rate", text)


def _macro(kind: str) -> Callable[[Finding | Verdict], str]:
    """The macro of a kind; only its template is compiled, since all take a third of a second."""
    module = _environment().get_template(_templates()[kind]).module
    macro: Callable[[Finding | Verdict], str] = getattr(module, kind)
    return macro


@functools.cache
def _templates() -> dict[str, str]:
    """The template that holds each macro.

    Raises:
        ValueError: if two macros have one name.
    """
    found: dict[str, str] = {}
    for path in sorted(_FOLDER.glob("*.jinja")):
        for kind in re.findall(r"{% macro ([a-z]\w*)", path.read_text(encoding="utf-8")):
            if kind in found:
                raise ValueError(f"two macros are called {kind!r}; the second is in {path.name}")
            found[kind] = path.name
    return found


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(  # of plain text  # nosec B701
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number, "p": p_value, "named": named, "plural": plural, "split": _SPLITS.get,
        "share": share, "smallest_p": smallest_p, "labelled": labelled,
    }  # fmt: skip
    environment.globals |= {
        "interval": interval, "estimate": estimate, "infinity": math.inf,
        "seeds_needed": MIN_SEEDS_TO_CLAIM,
        "units_needed": MIN_UNITS, "beside_chance": beside_chance,
    }  # fmt: skip
    return environment


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else decimal(value, digits)


def p_value(value: float) -> str:
    """`p = 0.031`, or `p < 0.001`."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def share(value: float) -> str:
    """A share as a percentage without decimals."""
    return f"{value:.0%}"


def interval(low: float | None, high: float | None) -> str:
    """` (95 % interval 0.10 to 0.25)`, or why there is none."""
    if low is None or high is None:
        return " (no interval: fewer than three seeds)"
    return f" (95 % interval {estimate(low, low, high)} to {estimate(high, low, high)})"


def estimate(value: float, low: float | None, high: float | None, sign: str = "") -> str:
    """A number no more exact than its 95 % interval: two digits of half the interval's width.

    More where an end would read as zero, which it is not. `sign="+"` writes a plus, too.
    """
    if low is None or high is None or not 0 < high - low < math.inf:
        return f"{value:{sign}.4g}"
    places = max(0, 1 - math.floor(math.log10((high - low) / 2)))
    for end in (low, high):
        if end:
            places = max(places, -math.floor(math.log10(2 * abs(end))))
    return f"{value:{sign},.{places}f}"


def beside_chance(chance: float | None) -> str:
    """` (chance 0.1)`: what an accuracy is worth without looking at an image."""
    return "" if chance is None else f" (chance {number(chance, 2)})"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 seed`, `6 seeds`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def labelled(label: str) -> str:
    """A label's name; `label 9` where it is a number, which would read as one."""
    return f"label {label}" if label[:1].isdigit() else label


def named(names: Iterable[str], separator: str = ", ") -> str:
    """Names in a row; long lists end in how many more there are."""
    every = list(names)
    shown = separator.join(every[:_MAX_NAMED])
    rest = len(every) - _MAX_NAMED
    return f"{shown} and {rest} more" if rest > 0 else shown
