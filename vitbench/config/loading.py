"""From a sweep file, a scale and overrides to a validated Sweep, or to all problems at once."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

import yaml
from pydantic import ValidationError

from vitbench.config import checks, yaml_file
from vitbench.config.checks import numbers
from vitbench.config.models import LENGTHS, Sweep
from vitbench.config.problems import (
    UNKNOWN_KEY,
    ConfigError,
    Path,
    Problem,
    dotted,
    known_keys,
    shorten,
    translate,
)
from vitbench.config.search import Range
from vitbench.config.yaml_file import Document
from vitbench.words import did_you_mean, nearest

PAPER = "paper"
# Keys that had another name. A sweep file that uses one is refused with the new name; results that
# were made under the old names are still read.
_RENAMED: dict[Path, str] = {
    ("stack",): "stack_size",
    ("search", "stack"): "inner",
    ("search", "trials"): "suggestions",
    ("budget", "trials"): "models",
}


@dataclass(frozen=True)
class SweepFile:
    """A sweep file, read once; gives its sweep at any scale and with any overrides."""

    path: FilePath
    document: Document

    @classmethod
    def read(cls, path: FilePath | str) -> SweepFile:
        """Read the file, and those that it extends, without judging what they say.

        Raises:
            ConfigError: if one is not YAML, or extends itself.
        """
        return cls(FilePath(path), _read(FilePath(path)))

    def sweep(self, *, scale: str = PAPER, overrides: Sequence[str] = ()) -> Sweep:
        """Override and validate what the file says.

        Overrides, `key=value` with a dotted key and a YAML value, are applied after the scale;
        `paper` is the file as written unless it has such a scale.

        Raises:
            ConfigError: with every problem, each as `file:line: key=value rule; fix`.
        """
        document, places, problems = self._applied(scale, overrides)
        values = document.values
        problems += [*_rename(values), *_overridden_axes(values, places), *_validate(values)]
        if problems:
            raise _all_at_once(self.path, document, problems, places)
        return Sweep.model_validate(values)

    def refuse(
        self, problems: Sequence[Problem], *, scale: str = PAPER, overrides: Sequence[str] = ()
    ) -> ConfigError:
        """The error for problems that were found with its sweep later, each at its line."""
        document, places, _ = self._applied(scale, overrides)
        return _all_at_once(self.path, document, list(problems), places)

    def _applied(
        self, scale: str, overrides: Sequence[str]
    ) -> tuple[Document, dict[Path, str], list[Problem]]:
        """The file with scale and overrides in it, where those stand, and what is wrong there."""
        document = copy.deepcopy(self.document)
        places: dict[Path, str] = {}
        values = document.values
        problems = [*_rename(values), *_apply_scale(values, document, scale)]
        _from_folder(_section(values, ("dataset",)), self.path.parent)
        for text in overrides:
            problems += _apply_override(values, text, places)
        _flatten_axes(values, document)
        return document, places, problems

    def located(self, message: str) -> str:
        """A message that begins with `key=value` of the file (or of a scale), with its line."""
        start = re.match(r"([a-z_.]+)=", message)
        if start is None:
            return message
        key: Path = tuple(start[1].split("."))
        scales = _section(self.document.values, ("scales",))
        axes: list[Path] = [("search", part, key[-1]) for part in ("space", "inner")]
        for path in (key, *axes, *(("scales", name, *key) for name in scales)):
            value = _section(self.document.values, path[:-1]).get(str(path[-1]))
            values = value if isinstance(value, list) else [value]
            said = any(message.startswith(f"{start[0]}{item}:") for item in values)
            if path in self.document.lines and said:
                return f"{self.place(path)}: {message}"
        return message

    def place(self, path: Path) -> str:
        """`file:line` of a key, or of the nearest section above it."""
        file, line = self.document.place(path)
        return f"{file or self.path}:{line}"


def load_sweep(file: FilePath | str, *, scale: str = PAPER, overrides: Sequence[str] = ()) -> Sweep:
    """Read, override and validate a sweep file (see SweepFile.sweep)."""
    return SweepFile.read(file).sweep(scale=scale, overrides=overrides)


def load_results_sweep(results_dir: FilePath) -> Sweep:
    """The sweep of a results folder, whatever its keys were called when it was written."""
    file = SweepFile.read(results_dir / "sweep.yaml")
    _rename(file.document.values)
    return file.sweep()


def results_values(results_dir: FilePath) -> dict[str, Any]:
    """What the sweep.yaml of a results folder says, under today's keys, as plain values."""
    file = results_dir / "sweep.yaml"
    values = yaml_file.read(file).values
    _rename(values)
    for key, kind in (("name", str), ("dataset", dict), ("train", dict), ("search", dict)):
        if not isinstance(values.get(key), kind):
            rule = f"has no `{key}:`, which the sweep.yaml of results has; put it back from a copy"
            raise ConfigError([f"{file}: {rule}"])
    return values


def resolved_yaml(sweep: Sweep) -> str:
    """The sweep as a file that loads to the same sweep, every default written out."""
    content = sweep.model_dump(mode="json", by_alias=True)
    content["scales"] = {}  # the scale has been applied
    if sweep.train.steps is not None or "steps" in sweep.search.space:
        del content["train"]["epochs"]  # said in steps
    return yaml_file.dump(content)


def _validate(values: dict[str, Any]) -> list[Problem]:
    if too_large := list(numbers.problems(values)):
        return too_large + _problems_of_the_rest(values, too_large)
    try:
        sweep = Sweep.model_validate(values)
    except ValidationError as error:
        wrong_values = _one_per_place([translate(e, Sweep) for e in error.errors()])
        return wrong_values + _problems_of_the_rest(values, wrong_values)
    problems = checks.problems(sweep)
    for name, tree in sweep.scales.items():
        wrong_values = _scale_problems(sweep, tree)
        problems += [
            replace(problem, path=("scales", name, *problem.path)) for problem in wrong_values
        ]
    return problems


def _one_per_place(problems: list[Problem]) -> list[Problem]:
    """Join what pydantic says of each branch of a union (`must be at least 1, or auto`)."""
    joined = []
    for path in dict.fromkeys(problem.path for problem in problems):
        same = [problem for problem in problems if problem.path == path]
        first, *others = dict.fromkeys(problem.rule for problem in same)
        rule = ", or ".join([first, *(other.removeprefix("must be ") for other in others)])
        joined.append(replace(same[0], rule=rule))
    return joined


def _problems_of_the_rest(values: dict[str, Any], wrong_values: list[Problem]) -> list[Problem]:
    """Check the sections that are right so far, so that one typo does not hide another problem.

    A key that does not exist counts as the one that was probably meant.
    """
    unknown = [problem.path for problem in wrong_values if problem.rule == UNKNOWN_KEY]
    wrong = {str(problem.path[0]) for problem in wrong_values if problem.path not in unknown}
    stand_ins = {"name": "name", "dataset": {"name": "mnist"}}
    meant = _as_meant(values, unknown)
    rest = stand_ins | {key: value for key, value in meant.items() if key not in wrong}
    try:
        sweep = Sweep.model_validate(rest)
    except ValidationError:
        return []
    shapes_known = not wrong & {"dataset", "model"}
    if "search" in wrong:
        wrong.add("claims")  # they are about its space
    return [
        problem
        for problem in checks.problems(sweep)
        if problem.path[0] not in wrong and (shapes_known or "space" in problem.path)
    ]


def _as_meant(values: dict[str, Any], unknown: Sequence[Path]) -> dict[str, Any]:
    """A copy in which each unknown key has the nearest name that is free, or is left out."""
    values = copy.deepcopy(values)
    for path in unknown:
        section = _section(values, path[:-1])
        value = section.pop(str(path[-1]), None)
        name = nearest(str(path[-1]), known_keys(Sweep, path[:-1]))
        if name is not None:
            section.setdefault(name, value)
    return values


def _scale_problems(sweep: Sweep, tree: dict[str, Any]) -> list[Problem]:
    """Problems that the sweep would have at a scale, so that a typo shows before it is needed."""
    values = sweep.model_dump(mode="json", by_alias=True, exclude={"scales"}, exclude_unset=True)
    _merge(values, tree)
    _flatten_axes(values, Document(values, {}))
    try:
        return checks.problems(Sweep.model_validate(values))
    except ValidationError as error:
        return [translate(e, Sweep) for e in error.errors()]


def _apply_scale(values: dict[str, Any], document: Document, scale: str) -> list[Problem]:
    scales = values.get("scales") or {}
    if not isinstance(scales, dict) or not all(isinstance(v, dict) for v in scales.values()):
        return []  # reported by the validation of the field
    if scale in scales:
        _merge(values, scales[scale], ("scales", scale), (), document)
    elif scale != PAPER:
        fix = did_you_mean(scale, dict.fromkeys([*scales, PAPER]))
        return [Problem(("scales",), "", f"there is no scale '{scale}'", fix)]
    return []


def _read(file: FilePath, above: tuple[FilePath, ...] = ()) -> Document:
    """A file laid over the one that it extends; `above` are the files that extend it."""
    document = yaml_file.read(file)
    named = document.values.pop("extends", None)
    if named is None:
        return document
    place = f"{file}:{document.lines['extends',]}: extends={named}"
    if not isinstance(named, str):
        raise ConfigError([f"{place}: must be the path of a sweep file, from this one's folder"])
    base_file = file.parent / named
    if not base_file.is_file():
        raise ConfigError([f"{place}: there is no such file; check the path"])
    if base_file.resolve() in (file.resolve(), *above):
        raise ConfigError([f"{place}: comes back to this file; name another"])
    base = _read(base_file, (file.resolve(), *above))
    _from_folder(_section(base.values, ("dataset",)), base_file.parent)
    _merge(base.values, document.values)
    files = dict.fromkeys(base.lines, base_file) | base.files
    own = {path: known for path, known in files.items() if path not in document.lines}
    return Document(base.values, base.lines | document.lines, own)


def _from_folder(dataset: dict[str, Any], folder: FilePath) -> None:
    """Make the path of the images one from anywhere: in the file it begins at the file's folder."""
    path = dataset.get("path")
    if isinstance(path, str) and not FilePath(path).expanduser().is_absolute():
        if dataset.get("name") == "huggingface" and not (folder / path).is_dir():
            return  # of the Hub
        dataset["path"] = str((folder / path).resolve())


def _merge(
    values: dict[str, Any],
    tree: dict[str, Any],
    source: Path = (),
    target: Path = (),
    document: Document | None = None,
) -> None:
    """Lay `tree` over `values`; the lines of what it brings go along."""
    if target == ("train",):
        _displace(values, tree)
    for key, value in tree.items():
        below = values.get(key)
        if isinstance(value, dict) and isinstance(below, dict) and key != "space":
            _merge(below, value, (*source, key), (*target, key), document)
        else:
            values[key] = value
        if document is not None and (*source, key) in document.lines:
            document.lines[(*target, key)] = document.lines[(*source, key)]


def _displace(train: dict[str, Any], brings: Iterable[str]) -> None:
    """Where one way to say how long models train is laid over another, the other one goes."""
    brought = set(brings) & set(LENGTHS)
    if len(brought) == 1:
        for name in {*LENGTHS} - brought:
            train.pop(name, None)


def _apply_override(values: dict[str, Any], text: str, places: dict[Path, str]) -> list[Problem]:
    key, equals, right = text.partition("=")
    path: Path = tuple(key.strip().split("."))
    shown = f"--set {shorten(text, quoted=False)}"
    places[path] = shown
    places[(*path[:2], ".".join(map(str, path[2:])))] = shown  # an axis with dots
    if not equals or not all(path):
        places[path] = "--set"
        return [Problem(path, "", f"'{text}' is not KEY=VALUE", "write e.g. train.epochs=2")]
    try:
        value = yaml_file.parse_value(right)
    except yaml.YAMLError:
        return [Problem(path, right, "is not a YAML value", "quote it for the shell")]
    for part in path[:-1]:
        values = values.setdefault(str(part), {})
        if not isinstance(values, dict):
            return [Problem(path, right, f"'{part}' is not a section", "check the key")]
    if path[:-1] == ("train",):
        _displace(values, [str(path[-1])])
    values[str(path[-1])] = value
    return []


def _overridden_axes(values: dict[str, Any], places: dict[Path, str]) -> list[Problem]:
    """Overrides that would change nothing, since the search gives that setting its values."""
    problems = []
    for path in places:
        if len(path) == 2 and path[0] in ("model", "train"):
            for axes in (("search", "space"), ("search", "inner")):
                if path[1] in _section(values, axes):
                    axis = dotted((*axes, path[1]))
                    value = shorten(_section(values, path[:1]).get(str(path[1])), quoted=False)
                    rule = f"changes nothing, since {axis} says which values are trained"
                    problems.append(Problem(path, value, rule, f"--set '{axis}=[{value}]'"))
    return problems


def _all_at_once(
    file: FilePath, document: Document, problems: list[Problem], places: dict[Path, str]
) -> ConfigError:
    def place(problem: Problem) -> tuple[int, str]:
        for length in range(len(problem.path), 0, -1):
            if problem.path[:length] in places:
                return 10**9, places[problem.path[:length]]
        other, line = document.place(problem.path)
        return line if other is None else 10**8 + line, f"{other or file}:{line}"

    ordered = sorted(problems, key=lambda problem: place(problem)[0])
    return ConfigError(list(dict.fromkeys(problem.text(place(problem)[1]) for problem in ordered)))


def _rename(values: dict[str, Any]) -> list[Problem]:
    """Give old keys their new names, in place; returns a problem for each that there was."""
    problems = []
    scales = _section(values, ("scales",)).items()
    trees: dict[Path, Any] = {(): values, **{("scales", name): tree for name, tree in scales}}
    for path, tree in trees.items():
        for old, new in _RENAMED.items():
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


def _flatten_axes(values: dict[str, Any], document: Document) -> None:
    """Write axes of one name each: `cnn: {lr: [...]}` as `cnn.lr: [...]`, which `--set` makes."""
    ranges = set(Range.model_fields)
    for part in ("space", "inner"):
        axes = _section(values, ("search", part))
        for head in [n for n, axis in axes.items() if isinstance(axis, dict)]:
            if not axes[head] or axes[head].keys() & ranges:
                continue
            flat = _dotted(axes.pop(head), head)
            axes.update(flat)
            for name in flat:
                file, line = document.place(("search", part, *name.split(".")))
                document.lines.setdefault(("search", part, name), line)
                if file is not None:
                    document.files.setdefault(("search", part, name), file)


def _dotted(tree: dict[str, Any], above: str) -> dict[str, Any]:
    ranges = set(Range.model_fields)
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{above}.{key}"
        inner = isinstance(value, dict) and value and not value.keys() & ranges
        flat |= _dotted(value, name) if inner else {name: value}
    return flat


def _section(values: Any, path: Path) -> dict[str, Any]:
    for part in path:
        values = values.get(part) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else {}
