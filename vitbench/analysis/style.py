"""How figures look: one width, one size of type, one colour per value, files in three forms."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator, NullFormatter

from vitbench.words import decimal

# Okabe and Ito's palette, without its yellow, which is too pale for lines on white; then three of
# Paul Tol's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000",
           "#882255", "#999933", "#7F7F7F")  # fmt: skip
DIVERGING = "RdBu_r"  # of attention: white where it is uniform
# How a trial ended, as a marker: filled for a full run, hollow for a censored one.
MARKS: dict[str, dict[str, Any]] = {
    "finished": {"marker": "o"},
    "stopped": {"marker": "o", "markerfacecolor": "none"},
    "interrupted": {"marker": "s", "markerfacecolor": "none"},
    "budget": {"marker": "D", "markerfacecolor": "none"},
    "diverged": {"marker": "x"},
    "running": {"marker": ".", "markerfacecolor": "none"},
}
_RATE = re.compile(r"\blr ([\d.e+-]+)$")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
WIDTH_IN = 7.2  # of every figure: both columns of a printed page
COLUMN_IN, COLUMNS_IN = 3.25, 6.75  # of a paper: one column, and both
_LIGHTEST = 0.75  # of viridis: its yellow is too pale for lines on a page
_rates: ContextVar[tuple[float, ...]] = ContextVar("rates", default=())
_paper_in: ContextVar[float | None] = ContextVar("paper_in", default=None)
RC: Any = {
    "text.parse_math": False,  # a label `$x^$` is no formula
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "pdf.fonttype": 42,  # TrueType: many venues refuse Type 3 fonts
    "font.size": 9,
    "figure.titlesize": 10,
    "figure.titleweight": "bold",
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def colour_of(values: Sequence[Any]) -> dict[Any, str]:
    """A colour for each value, whatever the order in which they come.

    Numbers, and settings that differ in the learning rate alone, run along viridis in their
    logarithm; names have the palette's colours by the alphabet, or run along viridis, too, where
    there are more of them than it has.
    """
    rest = {_RATE.sub("", value) if isinstance(value, str) else "" for value in values}
    alike = len(rest) == 1
    numbers = [_number_in(value) if alike else None for value in values]
    if numbers and all(number is not None and number > 0 for number in numbers):
        places = [math.log(number) for number in numbers if number is not None]
    else:
        order = sorted(set(map(str, values)))
        places = [float(order.index(str(value))) for value in values]
        if len(order) <= len(COLOURS):
            return {v: COLOURS[int(place)] for v, place in zip(values, places, strict=True)}
    ends = [*places, *(_rates.get() if alike else ())]
    low, span = min(ends, default=0.0), max(ends, default=0.0) - min(ends, default=0.0)
    ramp = matplotlib.colormaps["viridis"]
    shares = [(place - low) / span if span else 0.3 for place in places]
    return {v: to_hex(ramp(_LIGHTEST * share)) for v, share in zip(values, shares, strict=True)}


def _number_in(value: Any) -> float | None:
    """A number, or the rate of a setting named `depth 2, lr 0.003`; None for any other name."""
    if isinstance(value, int | float):
        return float(value)
    found = _RATE.search(str(value))
    return float(found[1]) if found else None


@contextmanager
def rates_of_sweep(rates: Iterable[float]) -> Iterator[None]:
    """Figures that are drawn meanwhile give a rate the colour that it has among all of these."""
    known = [float(rate) for rate in rates if rate > 0]
    before = _rates.set((math.log(min(known)), math.log(max(known))) if known else ())
    try:
        yield
    finally:
        _rates.reset(before)


@contextmanager
def for_paper(width_in: float) -> Iterator[None]:
    """Figures that are drawn meanwhile have this width and no words above or below."""
    before = _paper_in.set(width_in)
    try:
        yield
    finally:
        _paper_in.reset(before)


def width_in() -> float:
    """Width of a figure that is drawn now, in inches."""
    return _paper_in.get() or WIDTH_IN


@contextmanager
def canvas(height_in: float, title: str, grid: str | None = "both") -> Iterator[Figure]:
    """An empty figure in the house style, to be drawn on; its words come round it at the end.

    Args:
        height_in: height in inches; the width is that of all figures.
        title: stands above the drawing; what follows its first line, below in small type.
        grid: the axis (`x`, `y`, `both`) whose ticks have grid lines; None for no lines.
    """
    lines: Any = {"axes.grid.axis": grid} if grid else {"axes.grid": False}
    head, _, below = title.partition("\n")
    paper = _paper_in.get()
    if paper is not None:
        height_in *= math.sqrt(paper / WIDTH_IN)
        lines |= {"font.size": 8, "axes.titlesize": 8, "legend.fontsize": 7}
    with matplotlib.rc_context({**RC, **lines}):
        figure = Figure(figsize=(width_in(), height_in), layout="constrained")
        yield figure
        _plain_powers(figure)
        if paper is not None:
            for inside in filter(None, (ax.get_legend() for ax in figure.axes)):
                for text in inside.get_texts():
                    text.set_fontsize(6.5)
        _fit_legends(figure)
        _fit_labels(figure)
        if paper is not None:
            return
        figure.suptitle(textwrap.fill(head, 88), x=0.01, ha="left")
        if below:
            _small_line(figure, textwrap.fill(below, 128))


def _fit_labels(figure: Figure) -> None:
    """Break labels that are longer than the axis which they stand beside."""
    canvas: Any = FigureCanvasAgg(figure)
    legends = [one.get_window_extent(canvas.get_renderer()).height for one in figure.legends]
    height_in = figure.get_figheight() - 0.8 * sum(legends) / figure.dpi
    for ax in figure.axes:
        grid: Any = ax.get_subplotspec()
        rows, columns = grid.get_gridspec().get_geometry() if grid else (1, 1)
        # As many letters fit along each axis.
        ax.set_ylabel(_broken(ax.get_ylabel(), int(11 * height_in / rows)))
        ax.set_xlabel(_broken(ax.get_xlabel(), int(14 * figure.get_figwidth() / columns)))


def _broken(text: str, letters: int) -> str:
    return "\n".join(textwrap.fill(line, max(letters, 12)) for line in text.splitlines())


def _fit_legends(figure: Figure) -> None:
    """Give legends below the drawing fewer columns until they are no wider than it."""
    canvas: Any = FigureCanvasAgg(figure)
    for legend in list(figure.legends):
        words = [text.get_text() for text in legend.get_texts()]
        handles: Any = legend.legend_handles
        columns = min(len(words), 5)
        while legend.get_window_extent(canvas.get_renderer()).width > figure.bbox.width and columns:
            legend.remove()
            columns -= 1
            legend = figure.legend(
                handles, words, loc="outside lower center", ncols=max(1, columns)
            )


class _PlainPowers(LogFormatterSciNotation):
    """Ticks of a logarithmic axis as `2×10⁻³`: RC takes no text for a formula."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        text = str(super().__call__(x, pos))
        text = text.removeprefix("$\\mathdefault{").removesuffix("}$").replace("\\times", "×")
        return re.sub(r"\^\{([-\d]+)\}", lambda found: found[1].translate(_RAISED), text)


def _plain_powers(figure: Figure) -> None:
    """Write the ticks that matplotlib sets as formulas in plain signs."""
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        if isinstance(axis.get_major_formatter(), LogFormatterSciNotation):
            axis.set_major_formatter(_PlainPowers())
        if isinstance(axis.get_minor_formatter(), LogFormatterSciNotation):
            axis.set_minor_formatter(_PlainPowers())


def _small_line(figure: Figure, text: str) -> None:
    """What the results are of, along the lower edge; legends of the figure, then axes above."""
    partial = "PARTIAL" in text
    ink, weight = ("#B03000", "bold") if partial else ("0.4", "normal")
    figure.text(0.01, 0.004, text, fontsize=7, color=ink, weight=weight, va="bottom")
    below = share = (0.11 * text.count("\n") + 0.17) / figure.get_figheight()
    canvas: Any = FigureCanvasAgg(figure)
    for legend in figure.legends:  # constrained layout knows those at the very edge alone
        legend.set_bbox_to_anchor((0, share, 1, 1 - share), transform=figure.transFigure)
        box = legend.get_window_extent(canvas.get_renderer())
        below = max(below, float(box.y1 / figure.bbox.height))
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, below, 1, 1 - below))


def label_ends(ax: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Name lines to the right of their ends, each apart from the next, in place of a legend.

    Args:
        ax: with its final limits.
        ends: (height of the end in the axes' data, text, colour) of each line.
    """
    grid: Any = ax.get_subplotspec()
    rows = grid.get_gridspec().nrows if grid else 1
    figure: Any = ax.figure
    gap = 0.14 / (0.72 * figure.get_figheight() / rows)  # a line of type
    to_axes = ax.transScale + ax.transLimits
    places = sorted((float(to_axes.transform((1.0, y))[1]), text, ink) for y, text, ink in ends)
    if len(places) > (most := max(2, int(1 / gap))):  # more than there is room for: some of them
        step = (len(places) - 1) / (most - 1)
        places = [places[round(number * step)] for number in range(most)]
    heights: list[float] = []
    for place, _, _ in places:
        low = heights[-1] + gap if heights else 0.0
        heights.append(max(min(place, 1.0), low))
    for number in range(len(heights) - 1, -1, -1):  # what was pushed out at the top comes down
        roof = heights[number + 1] - gap if number + 1 < len(heights) else 1.0
        heights[number] = min(heights[number], roof)
    for height, (_, text, ink) in zip(heights, places, strict=True):
        ax.annotate(
            text, (1.0, height), (4, 0), xycoords="axes fraction", textcoords="offset points",
            va="center", color=ink, fontsize=8, annotation_clip=False,
        )  # fmt: skip


def mean_line(
    ax: Axes, line: pd.DataFrame, colour: str, label: str, dashes: str = "-", bare: bool = False
) -> None:
    """A mean over seeds by epoch, with a band from the lowest to the highest from three seeds on.

    Args:
        line: columns `epoch`, `mean`, `low`, `high`, `seeds`.
        bare: neither dots, which short lines have, nor a band.
    """
    dot = "o" if len(line) < 30 and not bare else ""
    ax.plot(line["epoch"], line["mean"], color=colour, ls=dashes, label=label, marker=dot, ms=3)
    if line["seeds"].max() >= 3 and not bare:
        ax.fill_between(line["epoch"], line["low"], line["high"], color=colour, alpha=0.15, lw=0)


def whole_numbers(ax: Axes, label: str = "epoch") -> None:
    """Name the x axis, and put its ticks at whole numbers alone."""
    ax.set_xlabel(label)
    grid: Any = ax.get_subplotspec()
    alone = not grid or grid.get_gridspec().ncols == 1
    ax.xaxis.set_major_locator(MaxNLocator(10 if alone else 6, integer=True))


def rate_axis(ax: Axes, rates: Iterable[float]) -> None:
    """A logarithmic axis of learning rates, with ticks at those tried where they are few."""
    ax.set_xscale("log")
    tried = sorted(set(rates))
    if len(tried) <= 4:
        ax.set_xticks(tried, list(map(decimal, tried)), fontsize=8)  # panels stand side by side
    ax.xaxis.set_minor_formatter(NullFormatter())


ALWAYS_SHOWN_NATS = 4.0  # guessing among 50 classes costs less


def with_note(title: str, note: str) -> str:
    """A title with a note in the small line below the drawing."""
    return f"{title}; {note}" if "\n" in title else f"{title}\n{note}"


def bound_losses(ax: Axes, losses: pd.Series, axis: str = "y") -> None:
    """End the axis of losses where a few that ran away would flatten all others, and say so."""
    limit = max(ALWAYS_SHOWN_NATS, 3 * float(losses.median()))
    if losses.max() > limit:
        ax.set(**{f"{axis}lim": (min(0.0, float(losses.min())), limit)})
        note = f"up to {losses.max():.2g} beyond the axis"
        ax.text(
            0.02,
            0.98 if axis == "y" else 0.9,
            note,
            transform=ax.transAxes,
            va="top",
            fontsize=8,
            color="0.3",
        )


FORMATS = (".png", ".pdf")  # of every figure


def save(
    figure: Figure,
    data: pd.DataFrame,
    folder: Path,
    name: str,
    formats: Sequence[str] | None = None,
) -> list[Path]:
    """Write a figure in each format (FORMATS), and the numbers it shows as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    csv = folder / f"{name}.csv"
    data.to_csv(csv, index=False)
    return [*save_pictures(figure, csv, formats), csv]


def save_pictures(figure: Figure, csv: Path, formats: Sequence[str] | None = None) -> list[Path]:
    """Write a figure in each format (FORMATS) beside the CSV of its numbers."""
    paths = [csv.with_suffix(suffix) for suffix in formats or FORMATS]
    for path in paths:
        save_picture(figure, path)
        figure.set_layout_engine("none")  # laid out once: it takes as long as drawing
    return paths


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure in the form that the name of its file says."""
    with matplotlib.rc_context(RC):
        # No date inside: the same tables give the same file.
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else {}
        figure.savefig(path, metadata=metadata)
