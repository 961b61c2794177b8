"""Figures of a comparison: merged learning curves, paired differences."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitbench.analysis import style
from vitbench.analysis.compare.numbers import BEST, METRICS, Comparison
from vitbench.analysis.figure_spec import FigureSpec

_MAX_ROWS = 24


def draw_curves(data: pd.DataFrame, title: str) -> Figure:
    """A panel per setting, a colour per folder: test loss in full, training loss dotted.

    Args:
        data: Comparison.curves.
        title: above all panels.
    """
    panels = list(data["panel"].unique())
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    colours = style.colour_of(sorted(data["folder"].unique()))
    width_in, height_in = max(6.5, 3.4 * columns), 3.0 * rows + 0.9
    with style.canvas(width_in, height_in, title, wrap=32 * max(2, columns)) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for number, ax in enumerate(grid.flat):
            if number >= len(panels):
                ax.set_axis_off()
                continue
            panel = data[data["panel"] == panels[number]]
            for folder, colour in colours.items():
                for split, dashes in (("train", ":"), ("test", "-")):
                    chosen = (panel["folder"] == folder) & (panel["split"] == split)
                    label = f"{folder}, {split}"
                    style.mean_line(ax, panel[chosen], colour, label, dashes, bare=split == "train")
            ax.set_title(textwrap.fill(str(panels[number]), 44))
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        style.bound_losses(grid[0][0], data["mean"])
        for row in grid:
            row[0].set_ylabel("cross entropy (nats)")
        handles, labels = grid[0][0].get_legend_handles_labels()
        columns_of_legend = min(5, len(colours))  # filled downwards: a column per folder
        figure.legend(handles, labels, loc="outside lower center", ncols=columns_of_legend)
    return figure


def differences_data(made: Comparison) -> pd.DataFrame:
    """The differences of single seeds beside their mean, `low`, `high`, `claim` and `metric`."""
    keys = ["setting", "folder", "against"]
    means = made.paired[[*keys, "difference", "low", "high", "claim"]]
    data = made.pairs.merge(means.rename(columns={"difference": "mean"}), on=keys)
    return data.assign(metric=METRICS[made.metric])


def draw_differences(data: pd.DataFrame, title: str) -> Figure:
    """A row per setting: a dot per seed, the mean, its t interval; filled where claimed.

    Args:
        data: of differences_data.
        title: above the axes.
    """
    rows = data[["setting", "folder", "against", "mean", "low", "high", "claim"]].drop_duplicates()
    shown = rows.head(_MAX_ROWS).reset_index(drop=True)
    if len(rows) > len(shown):
        title += f"; {len(shown)} of {len(rows)} settings"
    colours = style.colour_of(["", *sorted(data["folder"].unique())])  # A has the first
    with style.canvas(8.0, 1.7 + 0.36 * len(shown), title, wrap=84, grid="x") as figure:
        ax = figure.subplots()
        ax.axvline(0, color="0.3", lw=1)
        for number, row in shown.iterrows():
            at = float(number)  # type: ignore[arg-type]
            chosen = (data["setting"] == row["setting"]) & (data["folder"] == row["folder"])
            seeds = data.loc[chosen, "difference"]
            colour = colours[row["folder"]]
            ax.plot(seeds, np.full(len(seeds), at + 0.22), ls="", marker=".", ms=5, color="0.55")
            if np.isfinite(row["low"]):
                ax.hlines(at, row["low"], row["high"], color=colour, lw=2)
            face = colour if row["claim"] != "none" else "white"
            ax.plot(row["mean"], at, marker="o", ms=7, color=colour, markerfacecolor=face)
        several = rows["folder"].nunique() > 1
        labels = [
            f"{row['folder']}: {row['setting']}" if several else row["setting"]
            for row in shown.to_dict("records")
        ]
        ax.set_yticks(range(len(shown)), [textwrap.fill(str(text), 40) for text in labels])
        ax.set_ylim(len(shown) - 0.4, -0.6)
        against = shown["against"].iloc[0]
        folders = ", ".join(sorted(rows["folder"].unique()))
        ax.set_xlabel(
            f"{data['metric'].iloc[0]} of {folders} less that of {against}\n"
            f"line: 95 % t interval; filled: adjusted p < 0.05; grey: single seeds"
        )
    return figure


def describe_curves(data: pd.DataFrame) -> str:
    """The losses at the end of the first panel, with a heading of its own."""
    panel = str(data["panel"].iloc[0])
    part = data[(data["panel"] == panel) & (data["split"] == "test")]
    ends = part.sort_values("epoch").groupby("folder").last()
    said = ", ".join(f"{letter}: {value:.3g}" for letter, value in ends["mean"].items())
    where = "the best setting of each folder" if panel == BEST else panel
    count = data["panel"].nunique()
    more = f" {count} panels in all." if count > 1 else ""
    return f"Learning curves of all folders. Test loss at the last epoch at {where}: {said}.{more}"


def describe_differences(data: pd.DataFrame) -> str:
    """The mean differences, with a heading of its own."""
    metric = data["metric"].iloc[0]
    rows = data.drop_duplicates(["setting", "folder"]).head(6).to_dict("records")
    said = "; ".join(f"{r['folder']}, {r['setting']}: {r['mean']:+.3g}" for r in rows)
    return f"Paired differences in {metric} from the reference folder, mean over seeds: {said}."


FIGURES: tuple[FigureSpec[Comparison], ...] = (
    FigureSpec(
        "merged_curves", "curves", "Learning curves", lambda made: made.curves, draw_curves,
        describe_curves,
    ),
    FigureSpec(
        "paired_differences", "paired", "Paired differences", differences_data, draw_differences,
        describe_differences, lambda data: f" in {data['metric'].iloc[0]}",
    ),
)  # fmt: skip
