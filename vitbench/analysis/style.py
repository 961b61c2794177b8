"""How figures look: colours safe for colour-blind readers, one size, files in three forms."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

# Okabe and Ito's palette, without its yellow, which is too pale for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# How a trial ended, as a marker: filled for a full run, hollow for a censored one.
MARKS: dict[str, dict[str, Any]] = {
    "finished": {"marker": "o"},
    "stopped": {"marker": "o", "markerfacecolor": "none"},
    "interrupted": {"marker": "s", "markerfacecolor": "none"},
    "budget": {"marker": "D", "markerfacecolor": "none"},
    "diverged": {"marker": "x"},
    "running": {"marker": ".", "markerfacecolor": "none"},
}
RC: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "font.size": 10,
    "figure.titlesize": 11,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def colour_of(values: Sequence[Any]) -> dict[Any, str]:
    """A colour for each value, in order; more values than the palette has run along viridis."""
    if len(values) <= len(COLOURS):
        return dict(zip(values, COLOURS, strict=False))
    ramp = matplotlib.colormaps["viridis"]
    last = len(values) - 1
    return {value: to_hex(ramp(0.92 * n / last)) for n, value in enumerate(values)}


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure in the house style."""
    with matplotlib.rc_context(RC):
        return Figure(figsize=(width_in, height_in), layout="constrained")


@contextmanager
def canvas(
    width_in: float, height_in: float, title: str, wrap: int = 100, grid: str | None = "both"
) -> Iterator[Figure]:
    """An empty figure in the house style, to be drawn on; the title comes above it at the end.

    Args:
        width_in: width in inches.
        height_in: height in inches.
        title: put on lines of at most `wrap` characters.
        wrap: characters of a line of the title.
        grid: the axis (`x`, `y`, `both`) whose ticks have grid lines; None for no lines.
    """
    lines: Any = {"axes.grid.axis": grid} if grid else {"axes.grid": False}
    with matplotlib.rc_context({**RC, **lines}):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        yield figure
        figure.suptitle(wrapped(title, wrap))


def mean_line(
    ax: Axes, line: pd.DataFrame, colour: str, label: str, dashes: str = "-", bare: bool = False
) -> None:
    """A mean over seeds by epoch, with a band from the lowest to the highest from three seeds on.

    Args:
        ax: where to draw.
        line: columns `epoch`, `mean`, `low`, `high`, `seeds`.
        colour: of the line and its band.
        label: in the legend.
        dashes: matplotlib's line style.
        bare: neither dots, which short lines have, nor a band.
    """
    dot = "o" if len(line) < 30 and not bare else ""
    ax.plot(line["epoch"], line["mean"], color=colour, ls=dashes, label=label, marker=dot, ms=3)
    if line["seeds"].max() >= 3 and not bare:
        ax.fill_between(line["epoch"], line["low"], line["high"], color=colour, alpha=0.15, lw=0)


ALWAYS_SHOWN_NATS = 4.0  # guessing among 50 classes costs less


def bound_losses(ax: Axes, losses: pd.Series) -> None:
    """End the axis of losses where a few that ran away would flatten all others, and say so."""
    known = losses.dropna()
    if known.empty:
        return
    limit = max(ALWAYS_SHOWN_NATS, 3 * float(known.median()))
    if float(known.max()) > limit:
        ax.set_ylim(min(0.0, float(known.min())), limit)
        note = f"up to {known.max():.2g} beyond the axis"
        ax.text(0.02, 0.98, note, transform=ax.transAxes, va="top", fontsize=8, color="0.3")


def wrapped(title: str, width: int = 100) -> str:
    """A title on as many lines as it needs."""
    return textwrap.fill(title, width)


def save(figure: Figure, data: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and PDF, and the numbers it shows as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    csv = folder / f"{name}.csv"
    data.to_csv(csv, index=False)
    return [*save_pictures(figure, csv), csv]


def save_pictures(figure: Figure, csv: Path) -> list[Path]:
    """Write a figure as PNG and PDF beside the CSV of its numbers."""
    paths = [csv.with_suffix(".png"), csv.with_suffix(".pdf")]
    with matplotlib.rc_context(RC):
        figure.savefig(paths[0])
        # No date inside: the same tables give the same file.
        figure.savefig(paths[1], metadata={"CreationDate": None})
    return paths
