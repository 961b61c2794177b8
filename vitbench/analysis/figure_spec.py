"""What a figure is: its numbers, its drawing, its words, its place in the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import pandas as pd
from matplotlib.figure import Figure

Source = TypeVar("Source")


def _nothing(data: pd.DataFrame) -> str:
    return ""


@dataclass(frozen=True)
class FigureSpec(Generic[Source]):
    """One figure, made from results (or a comparison), or again from its CSV alone.

    Attributes:
        name: of its files, `<name>.png`, `.pdf` and `.csv`.
        section: of the report in which it stands, behind those listed before it.
        heading: what it is called on the page.
        data: its numbers; None where the results do not support it.
        draw: a drawing of the numbers, below a title.
        describe: the numbers in words, for those who cannot see the drawing.
        title_end: what the title adds to the heading.
        subtitle_end: what the title adds to the words on the results.
    """

    name: str
    section: str
    heading: str
    data: Callable[[Source], pd.DataFrame | None]
    draw: Callable[[pd.DataFrame, str], Figure]
    describe: Callable[[pd.DataFrame], str]
    title_end: Callable[[pd.DataFrame], str] = _nothing
    subtitle_end: Callable[[pd.DataFrame], str] = _nothing

    def title(self, data: pd.DataFrame, subtitle: str) -> str:
        """What stands above the drawing: the heading, and what the results are of."""
        title = self.heading + self.title_end(data)
        return f"{title} ({subtitle}{self.subtitle_end(data)})" if subtitle else title

    def alt(self, data: pd.DataFrame) -> str:
        """The drawing's text alternative."""
        return f"{self.heading}. {self.describe(data)}"


def at_target(data: pd.DataFrame) -> str:
    """The end of a title that names the target accuracy."""
    return f" {data['target'].iloc[0]:g}"


def several(data: pd.DataFrame) -> pd.DataFrame | None:
    """Nothing of a single row: there is no course to see in it."""
    return data if len(data) > 1 else None
