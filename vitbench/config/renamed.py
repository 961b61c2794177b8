"""Keys of a sweep file that had another name, or are gone.

A sweep file that uses one is refused with the new name; the `sweep.yaml` of a results folder that
was made under the old names is still read.
"""

from __future__ import annotations

from typing import Any

from vitbench.config.problems import Path, Problem, dotted

RENAMED: dict[Path, str] = {
    ("stack",): "stack_size",
    ("search", "stack"): "inner",
    ("search", "trials"): "suggestions",
    ("budget", "trials"): "models",
}


def rename(values: dict[str, Any]) -> list[Problem]:
    """Give old keys their new names, in place; returns a problem for each that there was."""
    problems = []
    scales = _section(values, ("scales",)).items()
    trees: dict[Path, Any] = {(): values, **{("scales", name): tree for name, tree in scales}}
    for path, tree in trees.items():
        for old, new in RENAMED.items():
            section = _section(tree, old[:-1])
            if old[-1] in section:
                value = section.pop(old[-1])
                section.setdefault(new, value)
                fix = f"write {dotted((*old[:-1], new))}"
                problems.append(Problem((*path, *old), "", "has another name now", fix))
        for name, axis in _section(tree, ("search", "space")).items():
            if isinstance(axis, dict) and axis.pop("int", None) is not None:
                rule = "whether a setting is a whole number is known from the setting"
                place = (*path, "search", "space", name, "int")
                problems.append(Problem(place, "", rule, "leave it out"))
    return problems


def _section(values: Any, path: Path) -> dict[str, Any]:
    for part in path:
        values = values.get(part) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else {}
