"""All settings of a search at once: parallel coordinates, and losses by pairs of settings."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve

from vitbench.analysis import style
from vitbench.analysis.findings.arms import in_words, setting, standing_in
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.render import spelled_out
from vitbench.analysis.results import Results
from vitbench.analysis.search import numbers as search
from vitbench.analysis.statistics import Floats
from vitbench.words import decimal

MIN_FOR_PAIRS = 12
_MAX_AXES = 9
_MAX_LEVELS = 8  # a setting of more values than this is a range
_MAX_LINES = 400
_BINS = 4
_PAIR_SETTINGS = 4
_WIDE = 30  # a range of positive numbers as wide as this is drawn in the logarithm
_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def parallel_data(results: Results) -> pd.DataFrame | None:
    """Suggestions with the settings that vary, the best first: settings, `loss`, `status`.

    None with fewer than two settings, of which slices show as much.
    """
    suggested = search.suggestions(results)
    names = search.varying(results, suggested)
    if len(names) < 2:
        return None
    data = suggested[[*names[:_MAX_AXES], "loss", "status"]]
    return data.sort_values("loss", kind="stable").reset_index(drop=True)


def draw_parallel(data: pd.DataFrame, title: str) -> Figure:
    """A line per suggestion through its settings to its loss; dark is good, dashed was stopped.

    Ranges that are wide have a logarithmic axis; ticks have three digits.

    Lines that share a level are spread over it, the best one lowest.
    """
    names = list(data.columns.drop(["loss", "status"]))
    shown = data.head(_MAX_LINES)
    limit, low = search.clip_at(data["loss"]), float(data["loss"].min())
    span = limit - low if limit > low else 1.0
    if len(data) > len(shown):
        title += f"; the best {len(shown)} of them"
    with style.canvas(4.2, title, grid=None) as figure:
        ax = figure.subplots()
        axes = [_heights(shown[name]) for name in names]
        ticks = [(f, f"{low + f * span:#.3g}") for f in _QUARTERS]
        if data["loss"].max() > limit:
            ticks[-1] = (1.0, f"{limit:#.3g} or more")
        axes.append((((shown["loss"].clip(upper=limit) - low) / span).to_numpy(), ticks))
        colours = ScalarMappable(Normalize(low, low + span), "cividis")
        points = np.column_stack([heights for heights, _ in axes])
        for number in range(len(shown) - 1, -1, -1):  # the best on top
            row, best = shown.iloc[number], number == 0
            dashes: Any = (0, (4, 2)) if row["status"] == "stopped" else "-"
            how: dict[str, Any] = {"lw": 1.2, "alpha": 0.75, "zorder": 2}
            how["ec"] = colours.to_rgba(row["loss"])
            if best:
                how = {"ec": style.COLOURS[1], "lw": 2.6, "alpha": 1, "zorder": 3}
            ax.add_patch(PathPatch(_through(points[number]), fill=False, ls=dashes, **how))
        box = {"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 0.6}
        for place, (_, ticks) in enumerate(axes):
            ax.axvline(place, color="0.25", lw=1, zorder=4)
            for height, text in ticks:
                ax.text(place + 0.03, height, text, fontsize=7, va="center", zorder=5, bbox=box)
        ax.set(xlim=(-0.05, len(names) + 0.35), ylim=(-0.06, 1.06), yticks=[])
        heads = [spelled_out(name).replace("_", "\n").replace(" ", "\n") for name in names]
        ax.set_xticks(range(len(names) + 1), [*heads, "best validation\nloss (nats)"])
        ax.tick_params(axis="x", length=0)
        ax.spines[["left", "bottom"]].set_visible(False)
    return figure


def describe_parallel(data: pd.DataFrame) -> Finding:
    """The settings of the three best suggestions."""
    names = data.columns.drop(["loss", "status"])
    best = [
        {"loss": row["loss"], "named": in_words(names, (row[name] for name in names))}
        for row in data.sort_values("loss").head(3).to_dict("records")
    ]
    return Finding("drawn_parallel", n=len(data), facts={"best": best})


def _through(heights: Floats) -> Curve:
    """A curve through all axes, level where it crosses one."""
    vertices = [(0.0, heights[0])]
    for place, (here, there) in enumerate(itertools.pairwise(heights)):
        vertices += [(place + 0.4, here), (place + 0.6, there), (place + 1.0, there)]
    return Curve(vertices, [Curve.MOVETO, *[Curve.CURVE4] * (len(vertices) - 1)])


def _levels(values: pd.Series) -> tuple[Any, list[str]] | None:
    """The place of each value among those of a setting of few, and these in words; else None.

    What is missing is a level of its own, the last one.
    """
    known = sorted(values.dropna().unique())
    if pd.api.types.is_numeric_dtype(values) and len(known) > _MAX_LEVELS:
        return None
    codes = pd.Categorical(values, categories=known).codes.astype(int)
    missing = codes < 0
    texts = [text_of(level) for level in (*known, None)]
    return np.where(missing, len(known), codes), texts if missing.any() else texts[:-1]


def is_wide(values: pd.Series) -> bool:
    """Whether a setting is drawn in the logarithm."""
    return float(values.min()) > 0 and float(values.max()) >= _WIDE * float(values.min())


def text_of(value: Any) -> str:
    """A level in words, the same before it was written to a CSV and after."""
    if value is None or value is pd.NA:
        return "none"
    return decimal(float(value)) if isinstance(value, int | float | np.number) else str(value)


def _heights(values: pd.Series) -> tuple[Floats, list[tuple[float, str]]]:
    """Where each value stands on its axis, in [0, 1], and the axis' ticks."""
    levels = _levels(values)
    if levels is not None:
        codes, texts = levels
        gap = 1 / max(1, len(texts) - 1)
        at = codes * gap
        for code in range(len(texts)):
            there = np.flatnonzero(codes == code)
            if len(there) > 1:  # spread over the level
                at[there] += 0.3 * min(gap, 0.25) * np.linspace(-0.5, 0.5, len(there))
        return at, [(number * gap, text) for number, text in enumerate(texts)]
    wide = is_wide(values)
    x = values.astype(float).to_numpy()
    x = np.log10(x) if wide else x
    low, span = float(np.nanmin(x)), float(np.nanmax(x) - np.nanmin(x))
    at = np.asarray((x - low) / span, dtype=np.float64)
    ends = [low + f * span for f in _QUARTERS]
    texts = [f"{10**end:#.3g}".rstrip(".") if wide else f"{end:.3g}" for end in ends]
    return at, list(zip(_QUARTERS, texts, strict=True))


def _end(value: float, is_log: bool) -> str:
    """An end of a bin of a range that may be in log10."""
    return f"{10**value:.2g}" if is_log else f"{value:.3g}"


PAIR_COLUMNS = ("x", "y", "x_bin", "y_bin", "x_label", "y_label", "loss", "lowest", "count")


def interactions_data(results: Results) -> pd.DataFrame | None:
    """Losses in the cells of each pair of the settings that explain most, two by two.

    Settings of many values are cut into equal bins, in the logarithm where their range is wide.
    Losses are clipped at their 90 % quantile; suggestions that were stopped early are left out.
    Of a grid the learning rate is left out too, which has heat maps of its own.

    Columns PAIR_COLUMNS: the settings' names, number and text of the bin, mean and lowest loss,
    trials; None with fewer than two settings or twelve trials.
    """
    if results.is_grid:
        trials = results.trials
        frame = trials.assign(loss=standing_in(trials, "val_loss")).dropna(subset=["loss"])
        names = [n for n in search.varying(results, frame) if n not in ("seed", "lr")]
    else:
        frame = search.suggestions(results)
        frame = frame[frame["status"] != "stopped"]
        names = search.varying(results, frame)
    if len(names) < 2 or len(frame) < MIN_FOR_PAIRS:
        return None
    loss = frame["loss"].astype(float).clip(upper=search.clip_at(frame["loss"]))
    binned = {name: _bins(frame[name]) for name in names}
    # The variance of the loss between the bins.
    explained = {n: loss.groupby(bins).transform("mean").var() for n, (bins, _) in binned.items()}
    names = sorted(names, key=lambda name: -explained[name])[:_PAIR_SETTINGS]
    rows = []
    for x, y in itertools.combinations(names, 2):
        (x_bins, x_labels), (y_bins, y_labels) = binned[x], binned[y]
        cells = loss.groupby([x_bins, y_bins]).agg(["mean", "min", "count"])
        for (i, j), *numbers in cells.itertuples():
            rows.append((x, y, i, j, x_labels[i], y_labels[j], *numbers))
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))


def _bins(values: pd.Series) -> tuple[Any, list[str]]:
    """Number of the bin of each value, and the bins in words."""
    levels = _levels(values)
    if levels is not None:
        return levels
    wide = is_wide(values)
    x = values.astype(float).to_numpy()
    x = np.log10(x) if wide else x
    edges = np.linspace(x.min(), x.max(), _BINS + 1)
    shown = [_end(edge, wide) for edge in edges]
    labels = [f"{low} to {high}" for low, high in itertools.pairwise(shown)]
    return np.clip(np.digitize(x, edges) - 1, 0, _BINS - 1), labels


def draw_interactions(data: pd.DataFrame, title: str) -> Figure:
    """A panel per pair of settings: the mean loss of each cell as colour and text, its trials."""
    pairs = list(data.groupby(["x", "y"], sort=False))
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    with style.canvas(2.4 * rows + 0.6, title, grid=None) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        low, high = float(data["loss"].min()), float(data["loss"].max())
        colours = ScalarMappable(Normalize(low, high), "cividis_r")
        for ax, (names, part) in zip(grid.flat, pairs, strict=False):
            table = np.full((part["y_bin"].max() + 1, part["x_bin"].max() + 1), np.nan)
            table[part["y_bin"], part["x_bin"]] = part["loss"]
            ax.imshow(table, cmap=colours.cmap, norm=colours.norm, aspect="auto", origin="lower")
            for cell in part.to_dict("records"):
                ink = "white" if cell["loss"] > (low + high) / 2 else "black"
                text = f"{cell['loss']:.3g}\nn = {cell['count']}"
                at = (cell["x_bin"], cell["y_bin"])
                ax.text(*at, text, ha="center", va="center", color=ink, fontsize=7)
            for axis, side, name in zip((ax.xaxis, ax.yaxis), "xy", names, strict=True):
                ticks = part.drop_duplicates(f"{side}_bin")
                to = "\nto\n" if side == "x" else "\nto "
                labels = [text_of(v).replace(" to ", to) for v in ticks[f"{side}_label"]]
                axis.set_ticks(list(ticks[f"{side}_bin"]), labels, fontsize=7)
                axis.set_label_text(spelled_out(str(name)).replace("_", " "))
        for ax in grid.flat[len(pairs) :]:
            ax.set_axis_off()
        bar = figure.colorbar(colours, ax=grid, aspect=30, pad=0.01)
        bar.set_label("mean validation loss (nats)")
    return figure


def describe_interactions(data: pd.DataFrame) -> Finding:
    """The cell of the lowest mean loss for each pair of settings."""
    best = data.loc[data.groupby(["x", "y"], sort=False)["loss"].idxmin()].to_dict("records")
    cells = [
        {**row, "settings": [setting(row[axis], row[f"{axis}_label"]) for axis in "xy"]}
        for row in best
    ]
    return Finding("drawn_interactions", facts={"best": cells})
