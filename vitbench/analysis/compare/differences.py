"""In what several results folders differ: settings, code, data, machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from vitbench.analysis.results import Results
from vitbench.config import AXES, Dataset, Model, Train

_SECTIONS = {Dataset: "dataset", Model: "model", Train: "train"}
_IGNORED = ("description", "scales", "storage")  # words, and where files go


def differences(folders: Mapping[str, Results]) -> pd.DataFrame:
    """What is not the same in all folders (results by the letter that they go by).

    Columns `kind` (setting, code, data, machine), `what`, and a text per letter.
    """
    facts: list[dict[tuple[str, str], str]] = []
    for found in folders.values():
        env = found.environment
        row = {("setting", key): value for key, value in _settings(found.sweep).items()}
        row["setting", "scale"] = str(env.get("scale", "?"))
        commit = str(env.get("git_commit") or "not from a git checkout")
        row["code", "commit"] = commit + (" with uncommitted changes" * bool(env.get("git_dirty")))
        row |= {("code", name): str(env.get(name, "?")) for name in ("vitbench", "python")}
        row |= {("code", k): str(v) for k, v in (env.get("packages") or {}).items()}
        row["data", "images"] = str(env.get("image_source", found.dataset))
        row["data", "checksum"] = str(env.get("data_checksum", "?"))
        row["machine", "cpu"] = f"{env.get('cpu', '?')}, {env.get('cpus', '?')} CPUs"
        row["machine", "gpus"] = ", ".join(env.get("gpus") or []) or "none"
        facts.append(row)
    kinds = ("setting", "code", "data", "machine")
    keys = sorted(dict.fromkeys(k for row in facts for k in row), key=lambda k: kinds.index(k[0]))
    rows = [(*key, *(row.get(key, "–") for row in facts)) for key in keys]
    differing = [row for row in rows if len(set(row[2:])) > 1]
    return pd.DataFrame(differing, columns=["kind", "what", *folders])


def _settings(sweep: Mapping[str, Any]) -> dict[str, str]:
    """A sweep file by dotted key; a setting that is an axis has the values of its axis."""
    flat = _flat({k: v for k, v in sweep.items() if k not in _IGNORED})
    for axes in ("space", "inner"):
        for name, values in sweep["search"].get(axes, {}).items():
            axis = f"search.{axes}.{name}"
            for key in [k for k in flat if k == axis or k.startswith(f"{axis}.")]:
                del flat[key]
            only = values[0] if isinstance(values, list) and len(values) == 1 else values
            flat[f"{_SECTIONS[AXES[name]]}.{name}"] = _text(only)
    return flat


def _text(value: Any) -> str:
    if isinstance(value, Mapping):  # a range; what it leaves out is false or missing
        value = {k: v for k, v in value.items() if v}
    return value if isinstance(value, str) else json.dumps(value)


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Values of a tree by dotted key, as text."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[above + key] = _text(value)
    return flat
