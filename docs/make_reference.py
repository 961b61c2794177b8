"""Write docs/sweep-file.md and docs/results.md out of the code: `make docs`.

What a sweep file may say is declared on the models of vitbench.config, what the tables hold in
vitbench.records.rows, what findings hold in vitbench.analysis.summary, of a comparison in
compare.findings; these pages are those declarations as text, and a test keeps them current.
"""

from __future__ import annotations

import sys
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from vitbench.analysis import summary
from vitbench.analysis.compare import findings as comparison
from vitbench.config import Range, Sweep
from vitbench.records import rows

HERE = Path(__file__).resolve().parent
_NOTE = "<!-- Written by `make docs` out of the code; edit the code. -->"
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def pages() -> dict[str, str]:
    """File name to content."""
    return {"sweep-file.md": sweep_file(), "results.md": results()}


def sweep_file() -> str:
    """Every key of a sweep file, section by section."""
    lines = [
        "# The sweep file",
        _NOTE,
        "",
        "One YAML file, one question. Keys that are not listed are refused with the nearest name, "
        "and all problems of a file are reported at once. *Stackable* settings are those in which "
        "models that train together may differ. In `search.space` and `search.inner` the settings "
        "of `model` and `train` go by their own name, e.g. `lr`, arguments of a "
        "builder as `args.NAME`, an axis of one of several models as `NAME.lr`; `--set` takes "
        "the whole path, e.g. `--set train.lr=0.001`. `extends: base.yaml` lays a file over "
        "another one: sections are merged, axes and lists replaced.",
        "",
    ]
    shown: dict[type[BaseModel], str] = {}
    for name, model in _sections(Sweep, ""):
        if model in shown:
            lines += [f"## `{name}`", "", f"The keys of `{shown[model]}`.", ""]
            continue
        shown[model] = name
        lines += [f"## {f'`{name}`' if name else 'Top level'}", "", *_fields(model, name), ""]
    return "\n".join(lines)


def _sections(model: type[BaseModel], name: str) -> list[tuple[str, type[BaseModel]]]:
    """The model and those inside it, depth first, with their YAML paths."""
    found = [(name, model)]
    for key, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            path = f"{name}.{key}" if name else key
            many = "[]" if typing.get_origin(field.annotation) is list else ".<name>"
            deeper = path if inner is field.annotation else f"{path}{many}"
            found += _sections(inner, deeper)
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def _fields(model: type[BaseModel], section: str) -> list[str]:
    lines = ["| Key | Type | Default | Meaning |", "|---|---|---|---|"]
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            kind, default, meaning = "section", "", f"see below: `{section}{key}`"
        else:
            kind, default = _type(field), _default(field)
            extra = field.json_schema_extra
            stackable = isinstance(extra, dict) and extra.get("stackable")
            meaning = "; ".join(
                part for part in (field.description or "", "stackable" if stackable else "") if part
            )
        lines.append(f"| `{field.alias or key}` | {kind} | {default} | {meaning} |")
    return lines


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{bound} {getattr(rule, name):,.12g}"
        for rule in field.metadata
        for name, bound in _BOUNDS.items()
        if hasattr(rule, name)
    ]
    return ", ".join([_name(field.annotation), *bounds])


def _name(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _name(parts[0])
    if origin is typing.Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (typing.Union, types.UnionType):
        if {bool, int, float, str} <= {*parts}:  # whatever a setting may be
            parts = ("value", *(part for part in parts if part not in (bool, int, float, str)))
        return " or ".join(_name(part) for part in parts if part is not type(None))
    if origin is list:
        return f"list of {_name(parts[0])}"
    if origin is dict:
        inner = "value" if parts[1] in (Any, JsonValue) else _name(parts[1])
        return f"{{name: {inner}, ...}}"
    names = {int: "whole number", float: "number", str: "text", bool: "true/false"}
    if annotation in names:
        return names[annotation]
    if annotation is Range:
        return "{low, high, log, step}"
    return "section" if isinstance(annotation, type) else str(annotation)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == {} or value == "":
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def results() -> str:
    """Every column of the tables, and every state of a trial."""
    return "\n".join(
        [
            "# Results",
            _NOTE,
            "",
            "`trials.parquet` has one row per trained model, `epochs.parquet` one per model and "
            "epoch; `.csv` twins hold the same. While a sweep runs they are written anew every "
            "minute at most (for a hundredth of its time at most), so that they can be read before "
            "its end. Column names are a contract: later versions add columns and rename none.",
            "",
            "## trials",
            "",
            *_columns(rows.TRIALS),
            "",
            "### States of a trial",
            "",
            "| `status` | Meaning |",
            "|---|---|",
            *(f"| `{name}` | {meaning} |" for name, meaning in rows.STATUSES.items()),
            "",
            "## epochs",
            "",
            *_columns(rows.EPOCHS),
            "",
            "## labels",
            "",
            "`labels.parquet` has one row per model and label, where models learn labels that are "
            "there or not. Scores are of the test images at the epoch of lowest validation loss.",
            "",
            *_columns(rows.LABELS),
            "",
            "## Claims, findings and limits",
            "",
            "`python -m vitbench.analysis RESULTS --json` prints one JSON object and nothing else, "
            "draws nothing, and needs the tables, `sweep.yaml` and `environment.json` alone. "
            "Settings are compared in test loss, all pairs at once and seed by seed, with the loss "
            "before training for models that diverged; losses of different labels are never "
            "compared. Numbers that are not known are null.",
            "",
            *_keys(summary.SummaryJson),
            "",
            "### Each of `arms`",
            "",
            *_keys(summary.ArmJson),
            "",
            "### Each of `findings`",
            "",
            *_keys(summary.FindingJson),
            "",
            "### Each of `claims`",
            "",
            *_keys(summary.ClaimJson),
            "",
            "## A comparison of results folders",
            "",
            "`vitbench compare A B... --json` prints one JSON object and nothing else, and writes "
            "no page. An effect is the other folder's value less the reference's, with the same "
            "setting and seeds in both; all differences of all folders are one family.",
            "",
            *_keys(comparison.ComparisonJson),
            "",
            "Each of its `findings` has the keys named above.",
            "",
            "### Each of `folders`",
            "",
            *_keys(comparison.FolderJson),
            "",
        ]
    )


def _columns(columns: tuple[rows.Column, ...]) -> list[str]:
    lines = ["| Column | Type | Meaning |", "|---|---|---|"]
    return lines + [f"| `{c.name}` | {c.dtype} | {c.meaning} |" for c in columns]


def _keys(schema: type) -> list[str]:
    """The keys of a typed dict, with their types and meanings."""
    names = {str: "text", bool: "true/false", int: "whole number", float: "number"}

    def kind(hint: Any) -> str:
        parts = typing.get_args(hint)
        if typing.get_origin(hint) in (list, dict):
            return "object" if typing.get_origin(hint) is dict else f"list of {kind(parts[0])}"
        if parts:
            return " or ".join("null" if p is type(None) else kind(p) for p in parts)
        return names.get(hint, "object")

    lines = ["| Key | Type | Meaning |", "|---|---|---|"]
    for name, hint in typing.get_type_hints(schema, include_extras=True).items():
        inner, meaning = typing.get_args(hint)
        lines.append(f"| `{name}` | {kind(inner)} | {meaning} |")
    return lines


def main() -> int:
    """Write the pages beside this file."""
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
        print(f"wrote docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
