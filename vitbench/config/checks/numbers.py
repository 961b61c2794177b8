"""Numbers that nobody means: they would be accepted, and never end or never fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from vitbench.config.problems import Path, Problem, shorten
from vitbench.config.search import Search

LARGEST = 10**9
# Of settings whose models would fit no memory long before that.
_LARGEST_OF = {"depth": 1000, "heads": 4096, "width": 65_536, "mlp": 262_144}
_MOST_MODELS = 1_000_000


def problems(values: Any, path: Path = (), most: int = LARGEST) -> Iterator[Problem]:
    """Every number of a file that is too large, wherever it stands."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from problems(value, (*path, str(key)), _LARGEST_OF.get(str(key), most))
    elif isinstance(values, list):
        for number, value in enumerate(values):
            yield from problems(value, (*path, number), most)
    elif type(values) in (int, float) and most < values < math.inf:
        yield Problem(path, shorten(values), f"must be at most {most:,}", "choose a smaller number")


def model_problems(search: Search) -> Iterator[Problem]:
    """More models than anybody can train, counted before any is listed."""
    sizes = [len(axis) for axis in search.space.values() if isinstance(axis, list)]
    if not search.is_grid:
        sizes = [search.suggestions, *(len(axis) for axis in search.inner.values())]
    if (count := math.prod(sizes)) > _MOST_MODELS:
        where = "space" if search.is_grid else "suggestions"
        rule = f"makes {count:,} models; at most {_MOST_MODELS:,} can be asked for"
        yield Problem(("search", where), "", rule, "shorten the axes")
