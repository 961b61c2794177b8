"""The figure of settings beside each other, for sweeps that ask which of them is best."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from vitbench.analysis import style
from vitbench.analysis.figure_spec import FigureSpec
from vitbench.analysis.findings.arms import shape_names
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.settings import METRIC, judged_arms
from vitbench.analysis.results import Results
from vitbench.analysis.statistics import mean_intervals

_MAX_SETTINGS = 16


def data(results: Results) -> pd.DataFrame | None:
    """The test loss of every seed of each setting that has them all, the lowest mean first.

    Columns: `arm`, `seed`, `value`, `mean`, `low`, `high` (t interval over seeds). None for a
    search, where the learning rate alone varies, and where labels or numbers of images are
    compared, which have figures of their own.
    """
    names = shape_names(results)
    if not results.is_grid or not names or {"label", "train_images"} & set(names):
        return None
    values = judged_arms(results).values
    if values.shape[1] < 2 or values.empty:
        return None
    mean_A, half_A = mean_intervals(values.to_numpy(dtype=float))
    ends = pd.DataFrame({"arm": values.columns, "mean": mean_A, "low": mean_A - half_A,
                         "high": mean_A + half_A})  # fmt: skip
    long = values.reset_index().melt("seed", var_name="arm", value_name="value")
    rows = long.merge(ends, on="arm").sort_values(["mean", "arm", "seed"], ignore_index=True)
    return rows[["arm", "seed", "value", "mean", "low", "high"]]


def draw(rows: pd.DataFrame, title: str) -> Figure:
    """A row per setting: a dot per seed, the mean and its interval; the lowest on top."""
    every = list(rows["arm"].unique())
    names = every[:_MAX_SETTINGS]
    if len(every) > len(names):
        title = style.with_note(title, f"the {len(names)} lowest of {len(every)} settings")
    few = style.colour_of(names) if len(names) <= len(style.COLOURS) else {}
    with style.canvas(1.2 + 0.3 * len(names), title, grid="x") as figure:
        ax = figure.subplots()
        for place, name in enumerate(names):
            colour = few.get(name, style.COLOURS[0])
            own = rows[rows["arm"] == name]
            ax.plot(own["value"], [place] * len(own), "o", color=colour, ms=4, alpha=0.6)
            mean, low, high = own[["mean", "low", "high"]].iloc[0]
            ax.plot([low, high], [place, place], color=colour, lw=1.5)
            ax.plot([mean], [place], "|", color=colour, ms=14, mew=2.5)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.5, -0.5)
        style.bound_losses(ax, rows["value"], "x")
        ax.set_xlabel(
            "test loss at the last epoch (nats)\ndots: seeds; bars: mean, 95 % t interval"
        )
    return figure


def describe(rows: pd.DataFrame) -> Finding:
    """The means of the lowest settings."""
    means = rows.drop_duplicates("arm")[["arm", "mean"]].head(8).to_dict("records")
    facts = {"means": means, "more": rows["arm"].nunique() - len(means)}
    return Finding("drawn_settings", metric=METRIC, n=rows["seed"].nunique(), facts=facts)


FIGURES: tuple[FigureSpec[Results], ...] = (
    FigureSpec("settings", "pairs", "Test loss by setting", data, draw, describe, rank=2),
)
