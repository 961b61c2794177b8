"""Whether JSON is what a typed dict says."""

from __future__ import annotations

import math
import types
import typing
from typing import Any


def matches(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of the type that the schema names, down to the last key."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return matches(value, parts[0])
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, part) for part in parts)
    if origin is list:
        return isinstance(value, list) and all(matches(v, parts[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(k, str) for k in value)
    if typing.is_typeddict(hint):
        fields = typing.get_type_hints(hint, include_extras=True)
        return set(value) == set(fields) and all(matches(value[k], fields[k]) for k in fields)
    if hint is float:
        return isinstance(value, float) and math.isfinite(value)
    return type(value) is hint
