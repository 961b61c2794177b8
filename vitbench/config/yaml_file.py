"""YAML with line numbers: every key and list item knows the line that it stands on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from vitbench.config.problems import ConfigError, Path, shorten

_LARGEST_CHARACTERS, _MOST_VALUES, _DEEPEST = 1_000_000, 100_000, 20


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads `3e-3` as a number, as YAML 1.2 and every user do."""


# PyYAML follows YAML 1.1, where a float needs a dot and a signed exponent.
_Loader.yaml_implicit_resolvers = {
    key: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for key, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+"
        r"|[-+]?(?:[0-9][0-9_]*)\.[0-9_]*|[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what `_Loader` would read as something else."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers
_LINE_BREAKS = set("\x85\u2028\u2029\ufeff")  # to YAML; in other quotes they would be folded
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if _LINE_BREAKS & set(text) else None
    ),
)


def dump(values: Any) -> str:
    """A text that `read` gives the same values of, whatever its texts look like."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


@dataclass
class Document:
    """A parsed file: plain values, and the line of every path in them.

    `files` names the file of paths that another file brought (`extends:`).
    """

    values: dict[str, Any]
    lines: dict[Path, int]
    files: dict[Path, FilePath] = field(default_factory=dict)

    def place(self, path: Path) -> tuple[FilePath | None, int]:
        """File (None for this one) and line of the path, or of the nearest section above it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.files.get(path), self.lines.get(path, 1)


def parse_value(text: str) -> Any:
    """Read a value as YAML would, e.g. the right side of `--set`."""
    return yaml.load(text, Loader=_Loader)  # a SafeLoader  # nosec B506


def read(file: FilePath) -> Document:
    """Parse a sweep file; a ConfigError if it cannot be read, is empty, or repeats a key."""
    if file.exists() and not (file.is_file() or file.is_dir()):  # a FIFO, a device: without an end
        raise ConfigError([f"{file}: is no plain file; name a sweep file"])
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{file}: there is no such file; check the path"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{file}: is a folder; name a sweep file in it"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file}: cannot be read as text: {error}"]) from None
    lines: dict[Path, int] = {}
    repeated: list[str] = []
    if len(text) > _LARGEST_CHARACTERS:
        raise ConfigError([f"{file}: has {len(text):,} characters; a sweep file has at most "
                           f"{_LARGEST_CHARACTERS:,}"])  # fmt: skip
    try:
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            raise ConfigError([f"{file}: is empty; start from one of the files in sweeps/"])
        values = _build(root, (), lines, repeated)
    except RecursionError:
        raise ConfigError([f"{file}: nests too deep; a sweep file has few levels"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([_syntax_problem(file, error)]) from None
    if repeated:
        raise ConfigError([f"{file}:{problem}" for problem in repeated])
    if not isinstance(values, dict):
        raise ConfigError(
            [f"{file}:1: must be `key: value` lines at the top; this is {shorten(values)}"]
        )
    return Document(values, lines)


def _build(node: yaml.Node, path: Path, lines: dict[Path, int], repeated: list[str]) -> Any:
    """The value of a node; notes the line of every path below it, and keys that stand twice."""
    lines.setdefault(path, node.start_mark.line + 1)
    if len(path) > _DEEPEST or len(lines) > _MOST_VALUES:
        # Also what aliases of aliases would grow to, and what contains itself.
        rule = f"nests deeper than {_DEEPEST} levels, or holds more than {_MOST_VALUES:,} values"
        raise yaml.constructor.ConstructorError(problem=rule, problem_mark=node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, n), lines, repeated) for n, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        try:
            return _Loader("").construct_object(node, deep=True)
        except ValueError as error:  # a date in month 13, `!!int abc`
            what = f"{shorten(node.value)} is not what its tag or form says: {error}"
            raise yaml.constructor.ConstructorError(
                problem=what, problem_mark=node.start_mark
            ) from None
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            rule = "a list or a section stands where a key belongs"
            raise yaml.constructor.ConstructorError(problem=rule, problem_mark=key_node.start_mark)
        key, line = str(key_node.value), key_node.start_mark.line + 1
        below = (*path, key)
        if key in mapping:
            also = f"the key stands here and on line {lines[below]}; keep one"
            repeated.append(f"{line}: {key}: {also}")
        lines[below] = line
        mapping[key] = _build(value_node, below, lines, repeated)
    return mapping


def _syntax_problem(file: FilePath, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{file}:{mark.line + 1}" if mark else f"{file}"
    what = getattr(error, "problem", None) or str(error)
    if "\\t" in what:
        return f"{place}: a tab stands where spaces belong; indent with spaces"
    return f"{place}: is not valid YAML: {what}; check indentation, colons and brackets"
