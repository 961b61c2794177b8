"""What pages are made of: templates, numbers as text, pictures inside the file."""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from vitbench.analysis.figure_spec import Drawn, FigureSpec
from vitbench.analysis.findings.render import spelled_out
from vitbench.words import decimal

MAX_EMBEDDED_BYTES = 7_000_000  # base64 adds a third: the page stays below 10 MB
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Picture:
    """One figure of the page: where its files are, and its picture as a data URI if it fits."""

    heading: str
    alt: str
    links: list[tuple[str, str]]
    uri: str | None


def render(template: str, content: Mapping[str, Any]) -> str:
    """Fill a template; `number`, `infinity`, the style sheet and the script are there for all."""
    return _environment().get_template(template).render(content)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "number": number,
        "percent": percent,
        "words": spelled_out,
        "infinity": math.inf,
        "css": (_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        "live_js": (_TEMPLATES / "live.js").read_text(encoding="utf-8"),
        "js": (_TEMPLATES / "report.js").read_text(encoding="utf-8"),
    }
    return environment


def number(value: Any, digits: int = 4) -> str:
    """A number as a reader wants it; a dash where there is none."""
    if pd.isna(value):
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if 10_000 <= abs(value) < 1e7 else decimal(value, digits)
    return str(value)


def percent(share: float) -> str:
    """A share as whole per cent with its sign: `+3 %`, `-12 %`, `0 %`."""
    whole = round(100 * share)
    return f"{whole:+d} %" if whole else "0 %"


class Embedder:
    """Puts pictures into the page while it stays small enough."""

    def __init__(self) -> None:
        self.left_bytes = MAX_EMBEDDED_BYTES

    def picture(self, heading: str, alt: str, paths: Sequence[Path]) -> Picture:
        """A figure from its files, the PNG first, in a folder beside the page."""
        links = [(path.suffix[1:].upper(), f"{path.parent.name}/{path.name}") for path in paths]
        content, uri = paths[0].read_bytes(), None
        if len(content) <= self.left_bytes:
            self.left_bytes -= len(content)
            uri = "data:image/png;base64," + base64.b64encode(content).decode()
        return Picture(heading, alt, links, uri)

    def of(self, one: Drawn) -> Picture:
        """A figure that was drawn, with its text alternative."""
        return self.picture(one.spec.heading, one.spec.alt(one.data), one.paths)

    def by_section(
        self, specs: Iterable[FigureSpec[Any]], drawn: Iterable[Drawn]
    ) -> dict[str, list[Picture]]:
        """The figures of each section, in their order; what is too much for the page is linked."""
        sections: dict[str, list[Picture]] = {spec.section: [] for spec in specs}
        for one in drawn:
            sections[one.spec.section].append(self.of(one))
        return sections
