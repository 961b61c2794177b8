"""YAML with line numbers: every key and list item knows the line that it stands on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from vitbench.config.problems import ConfigError, Path


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


@dataclass
class Document:
    """A parsed file: plain values, and the line of every path in them."""

    values: dict[str, Any]
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """Line of the path, or of the nearest section above it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse_value(text: str) -> Any:
    """Read a value as YAML would, e.g. the right side of `--set`."""
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def read(file: FilePath) -> Document:
    """Parse a sweep file.

    Raises:
        ConfigError: if the file cannot be read, is not YAML, is empty, or repeats a key.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{file}: there is no such file; check the path"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{file}: is a folder; name a sweep file in it"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file}: cannot be read as text: {error}"]) from None
    try:
        root = yaml.compose(text, Loader=_Loader)
        document = Document(values={})
        if root is None:
            raise ConfigError([f"{file}: is empty; start from one of the files in sweeps/"])
        repeated: list[str] = []
        values = _build(root, (), document, file, repeated)
    except yaml.YAMLError as error:
        raise ConfigError([_syntax_problem(file, error)]) from None
    if repeated:
        raise ConfigError(repeated)
    if not isinstance(values, dict):
        raise ConfigError([f"{file}:1: must be `key: value` lines at the top; this is {values!r}"])
    document.values = values
    return document


def _build(
    node: yaml.Node, path: Path, document: Document, file: FilePath, repeated: list[str]
) -> Any:
    document.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in mapping:
                first = document.lines[(*path, key)]
                repeated.append(
                    f"{file}:{line}: {key}: the key stands here and on line {first}; keep one"
                )
            document.lines[(*path, key)] = line
            mapping[key] = _build(value_node, (*path, key), document, file, repeated)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [
            _build(item, (*path, number), document, file, repeated)
            for number, item in enumerate(node.value)
        ]
    return _Loader("").construct_object(node, deep=True)


def _syntax_problem(file: FilePath, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{file}:{mark.line + 1}" if mark else f"{file}"
    what = getattr(error, "problem", None) or str(error)
    if "\\t" in what:
        return f"{place}: a tab stands where spaces belong; indent with spaces"
    return f"{place}: is not valid YAML: {what}; check indentation, colons and brackets"
