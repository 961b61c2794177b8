"""Problems of a sweep file, in words: place, value, rule and fix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from vitbench.errors import UserError
from vitbench.words import did_you_mean, nearest

Path = tuple[str | int, ...]
_MOST_SHOWN = 10


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a value; `path` leads to it from the top of the file."""

    path: Path
    value: str  # as `key=value`, or empty
    rule: str
    fix: str

    def text(self, place: str) -> str:
        """`file:line: key=value rule; fix`."""
        head = f"{place}: {dotted(self.path)}"
        shown = f"={self.value}" if self.value else ""
        return f"{head}{shown}: {self.rule}; {self.fix}"


def below(*section: str | int) -> Callable[[Path, str, str, str], Problem]:
    """A function that makes problems of what lies below this section."""
    return lambda path, value, rule, fix: Problem((*section, *path), value, rule, fix)


class ConfigError(UserError):
    """Everything that is wrong with a sweep file, in the order of its lines."""

    def __init__(self, lines: Sequence[str]) -> None:
        count = f"{len(lines)} problems" if len(lines) > 1 else "1 problem"
        shown = [f"  {line}" for line in lines[:_MOST_SHOWN]]
        if len(lines) > _MOST_SHOWN:
            shown.append(f"  and {len(lines) - _MOST_SHOWN:,} more")
        super().__init__("\n".join([f"{count}, nothing was started:", *shown]))
        self.lines = list(lines)


def dotted(path: Path) -> str:
    """`search.space.lr[2]`."""
    text = ""
    for part in path:
        key = shorten(part, quoted=False)
        text += f"[{key}]" if isinstance(part, int) else (f".{key}" if text else key)
    return text


UNKNOWN_KEY = "there is no such key"
_SECTION = "must be a section of `key: value` lines"
_EXPECTED = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), _SECTION),
    "finite_number": "must be finite",
}
_KINDS = {bool: "true/false", int: "a whole number", float: "a number", str: "text"}
_KINDS |= {list: "a list", dict: "a section", type(None): "empty"}
_BOUNDS = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}


def translate(error: Mapping[str, Any], model: type[BaseModel]) -> Problem:
    """Turn one of pydantic's errors into a problem in this project's words."""
    kind, value, loc = error["type"], error["input"], error["loc"]
    # The last part of these is a key of the file, whatever it looks like.
    last = 1 if kind in ("extra_forbidden", "missing") else 0
    path = (*_strip_unions(loc[: len(loc) - last]), *loc[len(loc) - last :])
    shown = "" if isinstance(value, dict) else shorten(value)
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        fix = did_you_mean(str(path[-1]), known_keys(model, path[:-1]))
        return Problem(path, "", UNKNOWN_KEY, fix)
    if kind == "missing":
        return Problem(path, "", "is missing", f"add `{path[-1]}:` to the file")
    if kind in _EXPECTED:
        kind_shown = _KINDS.get(type(value), type(value).__name__)
        return Problem(path, shown, _EXPECTED[kind], f"this is {kind_shown}")
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return Problem(path, shown, f"{words} {context[key]:g}", "choose such a value")
    if kind == "literal_error":
        choices = context["expected"].replace("'", "").replace(" or ", ", ")
        rule = f"must be one of {choices}"
        close = nearest(str(value), choices.split(", "))
        return Problem(path, shown, rule, f"did you mean '{close}'?" if close else "choose one")
    if kind == "string_pattern_mismatch":
        rule = "may hold letters, digits, '_', '-' and '.' only"
        why = "it names the results folder; " if path == ("name",) else ""
        return Problem(path, shown, rule, f"{why}leave spaces and / out")
    return Problem(path, shown, str(error["msg"]).lower(), "correct the value")


def shorten(value: Any, *, quoted: bool = True) -> str:
    """A value as it stands in a message."""
    text = repr(value) if quoted and isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _strip_unions(loc: Sequence[str | int]) -> Path:
    """Drop the names that pydantic adds to the path for the branches of a union."""
    noise = {"Range", "int", "float", "str", "bool", "constrained-int", "constrained-float"}
    return tuple(
        part
        for part in loc
        if not (isinstance(part, str) and (part in noise or "[" in part or "-" in part))
    )


def known_keys(model: type[BaseModel], section: Path) -> list[str]:
    """The keys that a section of the file may have."""
    fields = _model_at(model, section).model_fields
    return [field.alias or name for name, field in fields.items()]


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel]:
    """The model of the section at a path."""
    for part in path:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        annotation = next(iter(get_args(annotation)), annotation)  # of a list: of its items
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return model
