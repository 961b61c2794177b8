"""What a figure is: its numbers, its drawing, its words, its place in the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import pandas as pd
from matplotlib.figure import Figure

Source = TypeVar("Source")


@dataclass(frozen=True)
class FigureSpec(Generic[Source]):
    """One figure, made from results (or a comparison), or again from its CSV alone."""

    name: str  # of its files, `<name>.png`, `.pdf` and `.csv`
    section: str  # of the report in which it stands, behind those listed before it
    heading: str  # what it is called on the page
    data: Callable[[Source], pd.DataFrame | None]  # None where the results do not support it
    draw: Callable[[pd.DataFrame, str], Figure]  # below a title
    describe: Callable[[pd.DataFrame], str]  # in words, for those who cannot see the drawing
    title_end: Callable[[pd.DataFrame], str] = lambda data: ""  # what the title adds to the heading
    subtitle_end: Callable[[pd.DataFrame], str] = lambda data: ""  # and to what the results are of

    def title(self, data: pd.DataFrame, subtitle: str) -> str:
        """What stands above the drawing: the heading, and what the results are of."""
        title = self.heading + self.title_end(data)
        return f"{title} ({subtitle}{self.subtitle_end(data)})" if subtitle else title

    def alt(self, data: pd.DataFrame) -> str:
        """The drawing's text alternative."""
        return f"{self.heading}. {self.describe(data)}"


def several(data: pd.DataFrame) -> pd.DataFrame | None:
    """Nothing of a single row: there is no course to see in it."""
    return data if len(data) > 1 else None
