"""Figures of a comparison: merged learning curves, paired differences."""

from __future__ import annotations

import textwrap
from collections import defaultdict

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitbench.analysis import style
from vitbench.analysis.compare.numbers import BEST, METRICS, Comparison
from vitbench.analysis.figure_spec import FigureSpec
from vitbench.analysis.findings.arms import labels
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.statistics import mean_interval

_MAX_ROWS = 24
_MAX_PANELS = 6
_RATES = ["panel", "folder", "lr", "mean", "low", "high", "seeds"]


def draw_curves(data: pd.DataFrame, title: str) -> Figure:
    """A panel per setting, a colour per folder: test loss in full, training loss dotted."""
    panels = list(data.groupby("panel", sort=False))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    colours = style.colour_of(sorted(data["folder"].unique()))
    with style.canvas(2.5 * rows + 0.9, title) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for ax, (name, panel) in zip(grid.flat, panels, strict=False):
            for folder, colour in colours.items():
                for split, dashes in (("train", ":"), ("test", "-")):
                    line = panel[(panel["folder"] == folder) & (panel["split"] == split)]
                    label = f"{folder}, {split}"
                    style.mean_line(ax, line, colour, label, dashes, bare=split == "train")
            ax.set_title(textwrap.fill(str(name), 30))
            style.whole_numbers(ax)
        for ax in grid.flat[len(panels) :]:
            ax.set_axis_off()
        style.bound_losses(grid[0][0], data["mean"])
        for ax in grid[:, 0]:
            ax.set_ylabel("cross entropy (nats)")
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
    """A row per setting: a dot per seed, the mean, its t interval; filled where claimed."""
    rows = list(data.groupby(["setting", "folder"], sort=False))
    shown = rows[:_MAX_ROWS]
    if len(rows) > len(shown):
        title += f"; {len(shown)} of {len(rows)} settings"
    folders = sorted(data["folder"].unique())
    colours = style.colour_of(["", *folders])  # A has the first
    with style.canvas(1.7 + 0.34 * len(shown), title, grid="x") as figure:
        ax = figure.subplots()
        ax.axvline(0, color="0.3", lw=1)
        texts = []
        for y, ((setting, folder), part) in enumerate(shown):
            row, colour = part.iloc[0], colours[folder]
            ax.plot(part["difference"], [y + 0.22] * len(part), ".", ms=5, color="0.55")
            ax.hlines(y, row["low"], row["high"], color=colour, lw=2)
            face = colour if row["claim"] != "none" else "white"
            ax.plot(row["mean"], y, "o", ms=7, color=colour, mfc=face)
            text = f"{folder}: {setting}" if len(folders) > 1 else str(setting)
            texts.append(textwrap.fill(text, 40))
        ax.set_yticks(range(len(shown)), texts)
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.set_xlabel(
            f"{data['metric'].iloc[0]} of {', '.join(folders)} less that of "
            f"{data['against'].iloc[0]}\n"
            f"line: 95 % t interval; filled: adjusted p < 0.05; grey: single seeds"
        )
    return figure


def rates_data(made: Comparison) -> pd.DataFrame | None:
    """Mean validation loss by learning rate of each folder that varies it.

    Columns: `panel` (the other settings in words), `folder`, `lr`, `mean`, `low`, `high` (t
    interval), `seeds`. None but where two folders have several rates in common settings.
    """
    names = [name for name in made.names if name != "lr"]
    rows = []
    for side in made.sides:
        ended = side.ended
        for (panel, lr), part in ended.groupby([labels(ended, names), "lr"], sort=False):
            mean = mean_interval(part["val_loss"].to_numpy(dtype=float))
            rows.append((panel, side.letter, lr, mean.mean, *mean.ends, mean.n))
    data = pd.DataFrame(rows, columns=_RATES).sort_values(["panel", "folder", "lr"])
    counts = data.groupby(["panel", "folder"])["lr"].transform("nunique")
    data = data[counts > 1]
    shared = data.groupby("panel")["folder"].transform("nunique") > 1
    return data[shared].reset_index(drop=True)


def draw_rates(data: pd.DataFrame, title: str) -> Figure:
    """A panel per combination of the other settings, a line per folder, its t interval."""
    panels = list(data.groupby("panel", sort=False))[:_MAX_PANELS]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    colours = style.colour_of(sorted(data["folder"].unique()))
    with style.canvas(1.2 + 2.6 * rows, title) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        ends: dict[Axes, list[tuple[float, str, str]]] = defaultdict(list)
        for ax, (name, panel) in zip(grid.flat, panels, strict=False):
            for folder, line in panel.groupby("folder"):
                colour = colours[folder]
                dashes = "-" if folder == data["folder"].min() else "--"  # lines may coincide
                ax.plot(line["lr"], line["mean"], dashes, color=colour, marker="o", ms=4)
                band = line["low"], line["high"]
                ax.fill_between(line["lr"], *band, color=colour, alpha=0.15, lw=0)
                ends[ax].append((float(line["mean"].iloc[-1]), str(folder), colour))
            style.rate_axis(ax, data["lr"])
            ax.set_xlabel("learning rate")
            style.bound_losses(ax, data["mean"])
            if len(panels) > 1:
                ax.set_title(textwrap.fill(str(name), 30))
        for ax, named in ends.items():  # once the limits that all panels share are final
            style.label_ends(ax, named)
        for ax in grid.flat[len(panels) :]:
            ax.set_axis_off()
        for ax in grid[:, 0]:
            ax.set_ylabel("validation loss at the end (nats)\nband: 95 % t interval")
    return figure


def describe_rates(data: pd.DataFrame) -> Finding:
    """The rate of lowest mean loss of each folder, in the first panel."""
    part = data[data["panel"] == data["panel"].iloc[0]]
    best = part.loc[part.groupby("folder")["mean"].idxmin()].to_dict("records")
    return Finding("drawn_rates_of_folders", n=data["panel"].nunique(), facts={"best": best})


def describe_curves(data: pd.DataFrame) -> Finding:
    """The losses at the end of the first panel."""
    panel = data["panel"].iloc[0]
    part = data[(data["panel"] == panel) & (data["split"] == "test")]
    ends = part.sort_values("epoch").groupby("folder")["mean"].last().to_dict()
    where = "the best setting of each folder" if panel == BEST else panel
    facts = {"ends": ends, "panel": where}
    return Finding(
        "drawn_merged_curves", metric="test_loss", n=data["panel"].nunique(), facts=facts
    )


def describe_differences(data: pd.DataFrame) -> Finding:
    """The mean differences."""
    rows = data.drop_duplicates(["setting", "folder"])
    facts = {"title": data["metric"].iloc[0], "means": rows.to_dict("records")}
    return Finding("drawn_differences", n=len(rows), facts=facts)


FIGURES: tuple[FigureSpec[Comparison], ...] = (
    FigureSpec("merged_curves", "curves", "Learning curves", lambda made: made.curves, draw_curves,
               describe_curves),
    FigureSpec("merged_loss_by_lr", "rates", "Loss by learning rate", rates_data, draw_rates,
               describe_rates),
    FigureSpec("paired_differences", "paired", "Paired differences", differences_data,
               draw_differences, describe_differences,
               lambda data: f" in {data['metric'].iloc[0]}"),
)  # fmt: skip
