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
from matplotlib.ticker import MaxNLocator

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
    "pdf.fonttype": 42,  # TrueType: many venues refuse Type 3 fonts
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


@contextmanager
def canvas(
    width_in: float, height_in: float, title: str, wrap: int = 100, grid: str | None = "both"
) -> Iterator[Figure]:
    """An empty figure in the house style, to be drawn on; the title comes above it at the end.

    Args:
        width_in, height_in: size in inches.
        title: put on lines of at most `wrap` characters.
        grid: the axis (`x`, `y`, `both`) whose ticks have grid lines; None for no lines.
    """
    lines: Any = {"axes.grid.axis": grid} if grid else {"axes.grid": False}
    with matplotlib.rc_context({**RC, **lines}):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        yield figure
        figure.suptitle(textwrap.fill(title, wrap))


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
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


ALWAYS_SHOWN_NATS = 4.0  # guessing among 50 classes costs less


def bound_losses(ax: Axes, losses: pd.Series) -> None:
    """End the axis of losses where a few that ran away would flatten all others, and say so."""
    limit = max(ALWAYS_SHOWN_NATS, 3 * float(losses.median()))
    if losses.max() > limit:
        ax.set_ylim(min(0.0, float(losses.min())), limit)
        note = f"up to {losses.max():.2g} beyond the axis"
        ax.text(0.02, 0.98, note, transform=ax.transAxes, va="top", fontsize=8, color="0.3")


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
