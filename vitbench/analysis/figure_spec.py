"""What a figure is: its numbers, its drawing, its words, its place in the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd
from matplotlib.figure import Figure

from vitbench.analysis import style
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.render import sentence

Source = TypeVar("Source")


@dataclass(frozen=True)
class FigureSpec(Generic[Source]):
    """One figure, made from results (or a comparison), or again from its CSV alone."""

    name: str  # of its files, `<name>.png`, `.pdf` and `.csv`
    section: str  # of the report in which it stands, behind those listed before it
    heading: str  # what it is called on the page
    data: Callable[[Source], pd.DataFrame | None]  # None where the results do not support it
    draw: Callable[[pd.DataFrame, str], Figure]  # with a title (`style.canvas`)
    describe: Callable[[pd.DataFrame], Finding]  # what is drawn, for those who cannot see it
    title_end: Callable[[pd.DataFrame], str] = lambda data: ""  # what the title adds to the heading
    subtitle_end: Callable[[pd.DataFrame], str] = lambda data: ""  # and to what the results are of
    # Of the figures that results support, the one of highest rank leads the report; 0: never.
    rank: int = 0

    def title(self, data: pd.DataFrame, subtitle: str) -> str:
        """The heading, and on a second line what the results are of: a small one below."""
        title = self.heading + self.title_end(data)
        return f"{title}\n{subtitle}{self.subtitle_end(data)}" if subtitle else title

    def alt(self, data: pd.DataFrame) -> str:
        """The drawing's text alternative."""
        return f"{self.heading}. {sentence(self.describe(data))}"


@dataclass(frozen=True)
class Drawn:
    """A figure with its numbers and its files (PNG, PDF, CSV)."""

    spec: FigureSpec[Any]
    data: pd.DataFrame
    paths: list[Path]


def supported(
    specs: Iterable[FigureSpec[Source]], source: Source
) -> Iterator[tuple[FigureSpec[Source], pd.DataFrame]]:
    """Every figure that the results (or a comparison) support, with its numbers."""
    for spec in specs:
        data = spec.data(source)
        if data is not None and not data.empty:
            yield spec, data


def draw(
    specs: Iterable[FigureSpec[Source]],
    source: Source,
    subtitle: str,
    folder: Path,
    formats: Sequence[str] | None = None,
) -> list[Drawn]:
    """Draw every figure that is supported into a folder."""
    drawn = []
    for spec, data in supported(specs, source):
        figure = spec.draw(data, spec.title(data, subtitle))
        drawn.append(Drawn(spec, data, style.save(figure, data, folder, spec.name, formats)))
    return drawn


def several(data: pd.DataFrame) -> pd.DataFrame | None:
    """The data of a figure; None where there are fewer than two rows, which show no course."""
    return data if len(data) > 1 else None
