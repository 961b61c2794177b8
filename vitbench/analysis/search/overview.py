"""All settings of a search at once: parallel coordinates, and losses by pairs of settings."""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib.patches
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.path import Path as Curve

from vitbench.analysis import style
from vitbench.analysis.findings.arms import in_words, setting, standing_in
from vitbench.analysis.results import Results
from vitbench.analysis.search import numbers as search
from vitbench.analysis.statistics import Floats

MIN_FOR_PAIRS = 12
_MAX_AXES = 9
_MAX_LEVELS = 8  # a setting of more values than this is a range
_MAX_LINES = 400
_BINS = 4
_PAIR_SETTINGS = 4
_WIDE = 30  # a range of positive numbers as wide as this is drawn in the logarithm
_LOSS = "best validation loss (nats)"


def parallel_data(results: Results) -> pd.DataFrame | None:
    """Suggestions with the settings that vary, the best first: settings, `loss`, `status`.

    None with fewer than two settings, of which slices show as much.
    """
    found = search.suggestions(results)
    names = [n for n in search.settings(results) if found[n].nunique(dropna=False) > 1]
    if len(names) < 2:
        return None
    data = found[[*names[:_MAX_AXES], "loss", "status"]]
    return data.sort_values("loss", kind="stable").reset_index(drop=True)


def draw_parallel(data: pd.DataFrame, title: str) -> Figure:
    """A line per suggestion through its settings to its loss; dark is good, dashed was stopped.

    Lines that share a level are spread over it, the best one lowest.
    """
    names = [name for name in data.columns if name not in ("loss", "status")]
    shown = data.head(_MAX_LINES)
    limit = clip_at(data["loss"])
    width_in = max(6.5, 1.5 * (len(names) + 1) + 1.6)
    if len(data) > len(shown):
        title += f"; the best {len(shown)} of them"
    with style.canvas(width_in, 4.4, title, wrap=int(14 * width_in - 6), grid=None) as figure:
        ax = figure.subplots()
        heights, ticks = [], []
        for name in names:
            at, labels = _heights(shown[name])
            heights.append(at)
            ticks.append(labels)
        low = float(data["loss"].min())
        span = limit - low if limit > low else 1.0
        heights.append(((shown["loss"].clip(upper=limit) - low) / span).to_numpy(dtype=float))
        ticks.append([(f, f"{low + f * span:.3g}") for f in (0.0, 0.25, 0.5, 0.75, 1.0)])
        if float(data["loss"].max()) > limit:
            ticks[-1][-1] = (1.0, f"{limit:.3g} or more")
        colours = ScalarMappable(Normalize(low, limit if limit > low else low + 1), "cividis")
        points = np.column_stack(heights)
        for number in range(len(shown) - 1, -1, -1):  # the best on top
            row = shown.iloc[number]
            _line(ax, points[number], colours.to_rgba(row["loss"]), row["status"], number == 0)
        for place, labels in enumerate(ticks):
            ax.axvline(place, color="0.25", lw=1, zorder=4)
            for height, text in labels:
                ax.text(
                    place + 0.03, height, text, fontsize=8, va="center", zorder=5,
                    bbox={"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 0.6},
                )  # fmt: skip
        ax.set_xlim(-0.05, len(names) + 0.35)
        ax.set_ylim(-0.06, 1.06)
        ax.set_yticks([])
        heads = [name.replace("_", " ") for name in names] + ["loss"]
        ax.set_xticks(range(len(heads)), heads)
        ax.tick_params(axis="x", length=0)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
        bar = figure.colorbar(colours, ax=ax, pad=0.01, aspect=30)
        bar.set_label(_LOSS)
    return figure


def describe_parallel(data: pd.DataFrame) -> str:
    """The settings of the three best suggestions."""
    names = [name for name in data.columns if name not in ("loss", "status")]
    best = "; ".join(
        f"{row['loss']:.3g} with {in_words(names, (row[name] for name in names))}"
        for row in data.sort_values("loss").head(3).to_dict("records")
    )
    return f"A line through the settings of each of {len(data)} suggestions. The best: {best}."


def clip_at(losses: pd.Series) -> float:
    """Where an axis or a scale of colours of losses ends: most of them fit."""
    return float(losses.quantile(search.CLIP_QUANTILE))


def _line(ax: Axes, heights: Floats, colour: Any, status: str, best: bool) -> None:
    """A curve through all axes, level where it crosses one."""
    vertices = [(0.0, heights[0])]
    for place in range(len(heights) - 1):
        here, there = heights[place], heights[place + 1]
        vertices += [(place + 0.4, here), (place + 0.6, there), (place + 1.0, there)]
    codes = [Curve.MOVETO, *[Curve.CURVE4] * (len(vertices) - 1)]
    patch = matplotlib.patches.PathPatch(
        Curve(vertices, codes),
        fill=False,
        ec=style.COLOURS[1] if best else colour,
        lw=2.6 if best else 1.2,
        alpha=1 if best else 0.75,
        ls=(0, (4, 2)) if status == "stopped" else "-",
        zorder=3 if best else 2,
    )
    ax.add_patch(patch)


def _levels(values: pd.Series) -> list[Any] | None:
    """The values of a setting of few, in order; None for a range."""
    known = values.dropna()
    if not pd.api.types.is_numeric_dtype(values) or known.nunique() <= _MAX_LEVELS:
        levels = sorted(known.unique())
        return [*levels, None] if values.isna().any() else levels
    return None


def _is_level(values: pd.Series, level: Any) -> Any:
    return values.isna() if level is None else (values == level).fillna(False)


def _is_wide(values: pd.Series) -> bool:
    return float(values.min()) > 0 and float(values.max()) >= _WIDE * float(values.min())


def text_of(value: Any) -> str:
    """A level in words, the same before it was written to a CSV and after."""
    if value is None or value is pd.NA:
        return "none"
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)


def _heights(values: pd.Series) -> tuple[Floats, list[tuple[float, str]]]:
    """Where each value stands on its axis, in [0, 1], and the axis' ticks."""
    levels = _levels(values)
    if levels is not None:
        gap = 1 / max(1, len(levels) - 1)
        at = np.zeros(len(values))
        for number, level in enumerate(levels):
            there = np.flatnonzero(_is_level(values, level))
            spread = np.linspace(-0.5, 0.5, len(there)) if len(there) > 1 else np.zeros(len(there))
            at[there] = number * gap + 0.3 * min(gap, 0.25) * spread
        return at, [(number * gap, text_of(level)) for number, level in enumerate(levels)]
    x = values.astype(float).to_numpy()
    wide = _is_wide(values)
    x = np.asarray(np.log10(x) if wide else x, dtype=np.float64)
    low, high = float(np.nanmin(x)), float(np.nanmax(x))
    ends = [low + f * (high - low) for f in (0.0, 0.25, 0.5, 0.75, 1.0)]
    labels = [
        ((e - low) / (high - low), f"{10**e:.2g}" if wide else f"{e:.3g}") for e in ends
    ]  # fmt: skip
    return np.asarray((x - low) / (high - low), dtype=np.float64), labels


PAIR_COLUMNS = ("x", "y", "x_bin", "y_bin", "x_label", "y_label", "loss", "lowest", "count")


def interactions_data(results: Results) -> pd.DataFrame | None:
    """Losses in the cells of each pair of the settings that explain most, two by two.

    Settings of many values are cut into equal bins, in the logarithm where their range is wide.
    Losses are clipped at their 90 % quantile; suggestions that were stopped early are left out.
    Of a grid the learning rate is left out too, which has heat maps of its own.

    Returns:
        Columns PAIR_COLUMNS: the settings' names, number and text of the bin, mean and lowest
        loss, trials; None with fewer than two settings or twelve trials.
    """
    if results.sweep["search"]["method"] == "grid":
        frame = results.trials.assign(loss=standing_in(results.trials, "val_loss")).dropna(
            subset=["loss"]
        )
        names = [n for n in search.settings(results) if n not in ("seed", "lr")]
    else:
        frame = search.suggestions(results)
        frame = frame[frame["status"] != "stopped"]
        names = search.settings(results)
    names = [n for n in names if frame[n].nunique(dropna=False) > 1]
    if len(names) < 2 or len(frame) < MIN_FOR_PAIRS:
        return None
    loss = frame["loss"].astype(float).clip(upper=clip_at(frame["loss"]))
    binned = {name: _bins(frame[name]) for name in names}
    names = sorted(names, key=lambda n: -_explained(loss, binned[n][0]))[:_PAIR_SETTINGS]
    rows = []
    for x, y in itertools.combinations(names, 2):
        (x_bins, x_labels), (y_bins, y_labels) = binned[x], binned[y]
        cells = loss.groupby([x_bins, y_bins]).agg(["mean", "min", "count"])
        for (i, j), mean, lowest, count in cells.itertuples():
            rows.append((x, y, i, j, x_labels[i], y_labels[j], mean, lowest, count))
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))


def _bins(values: pd.Series) -> tuple[Any, list[str]]:
    """Number of the bin of each value, and the bins in words."""
    levels = _levels(values)
    if levels is not None:
        index = {level: number for number, level in enumerate(levels)}
        numbers = [index[None if pd.isna(value) else value] for value in values]
        return np.array(numbers), [text_of(level) for level in levels]
    wide = _is_wide(values)
    x = values.astype(float).to_numpy()
    x = np.log10(x) if wide else x
    edges = np.linspace(x.min(), x.max(), _BINS + 1)
    shown = [f"{10**e:.2g}" if wide else f"{e:.3g}" for e in edges]
    labels = [f"{low} to {high}" for low, high in itertools.pairwise(shown)]
    return np.clip(np.digitize(x, edges) - 1, 0, _BINS - 1), labels


def _explained(loss: pd.Series, bins: Any) -> float:
    """Share of the variance of the loss between the bins."""
    means = loss.groupby(bins).transform("mean")
    total = float(loss.var(ddof=0))
    return float(means.var(ddof=0)) / total if total > 0 else 0.0


def draw_interactions(data: pd.DataFrame, title: str) -> Figure:
    """A panel per pair of settings: the mean loss of each cell as colour and text, its trials."""
    pairs = list(dict.fromkeys(zip(data["x"], data["y"], strict=True)))
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    width_in, height_in = max(6.5, 3.6 * columns), 3.1 * rows + 0.6
    wrap = int(14 * width_in - 6)
    with style.canvas(width_in, height_in, title, wrap=wrap, grid=None) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        low, high = float(data["loss"].min()), float(data["loss"].max())
        colours = ScalarMappable(Normalize(low, high), "cividis_r")
        for number, ax in enumerate(grid.flat):
            if number >= len(pairs):
                ax.set_axis_off()
                continue
            part = data[(data["x"] == pairs[number][0]) & (data["y"] == pairs[number][1])]
            table = np.full((part["y_bin"].max() + 1, part["x_bin"].max() + 1), np.nan)
            table[part["y_bin"], part["x_bin"]] = part["loss"]
            ax.imshow(table, cmap=colours.cmap, norm=colours.norm, aspect="auto", origin="lower")
            for cell in part.to_dict("records"):
                ink = "white" if cell["loss"] > (low + high) / 2 else "black"
                text = f"{cell['loss']:.3g}\nn = {cell['count']}"
                ax.text(
                    cell["x_bin"], cell["y_bin"], text, ha="center", va="center", color=ink,
                    fontsize=8,
                )  # fmt: skip
            for axis, name in ((ax.xaxis, "x"), (ax.yaxis, "y")):
                ticks = part.drop_duplicates(f"{name}_bin")
                labels = [
                    text_of(value).replace(" to ", "\nto ") for value in ticks[f"{name}_label"]
                ]
                axis.set_ticks(list(ticks[f"{name}_bin"]), labels, fontsize=8)
                axis.set_label_text(pairs[number][0 if name == "x" else 1].replace("_", " "))
        bar = figure.colorbar(colours, ax=grid, aspect=30, pad=0.01)
        bar.set_label("mean validation loss (nats)")
    return figure


def describe_interactions(data: pd.DataFrame) -> str:
    """The cell of the lowest mean loss for each pair of settings."""
    best = data.loc[data.groupby(["x", "y"], sort=False)["loss"].idxmin()].to_dict("records")
    cells = "; ".join(
        f"{setting(row['x'], row['x_label'])} and {setting(row['y'], row['y_label'])}: "
        f"{row['loss']:.3g} (n = {row['count']})"
        for row in best
    )
    return f"Cell of the lowest mean loss for each pair. {cells}."
