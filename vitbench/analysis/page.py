"""What pages are made of: templates, numbers as text, pictures inside the file."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

MAX_EMBEDDED_BYTES = 7_000_000  # base64 adds a third: the page stays below 10 MB
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Picture:
    """One figure of the page: where its files are, and its picture as a data URI if it fits."""

    name: str
    heading: str
    alt: str
    links: list[tuple[str, str]]
    uri: str | None


def render(template: str, content: Mapping[str, Any]) -> str:
    """Fill a template; `number`, `infinity`, the style sheet and the script are there for all."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "number": number,
        "infinity": math.inf,
        "css": (_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        "js": (_TEMPLATES / "report.js").read_text(encoding="utf-8"),
    }
    return environment.get_template(template).render(content)


def number(value: Any, digits: int = 4) -> str:
    """A number as a reader wants it; a dash where there is none."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if 10_000 <= abs(value) < 1e7 else f"{value:.{digits}g}"
    return str(value)


class Embedder:
    """Puts pictures into the page while it stays small enough."""

    def __init__(self, size_bytes: int = MAX_EMBEDDED_BYTES) -> None:
        self.left = size_bytes

    def uri(self, path: Path) -> str | None:
        """A PNG as a data URI, or None where the page would grow too large."""
        size = path.stat().st_size
        if size > self.left:
            return None
        self.left -= size
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()

    def picture(self, name: str, heading: str, alt: str, paths: Sequence[Path]) -> Picture:
        """A figure from its files, the PNG first, in a folder beside the page."""
        links = [(path.suffix[1:].upper(), f"{path.parent.name}/{path.name}") for path in paths]
        return Picture(name, heading, alt, links, self.uri(paths[0]))
