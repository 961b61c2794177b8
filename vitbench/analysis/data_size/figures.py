"""Figures on the number of training images: curves with their law, doubling, the best rate."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from vitbench.analysis import style
from vitbench.analysis.data_size import power_law
from vitbench.analysis.data_size.curves import Curve, curves_of
from vitbench.analysis.data_size.findings import fits_of
from vitbench.analysis.data_size.power_law import MAX_FACTOR, Fitted, Refusal
from vitbench.analysis.figure_spec import FigureSpec
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.results import Results
from vitbench.analysis.statistics import Floats, mean_intervals

_MAX_LINES = 6
_LAW_POINTS = 15
_FLOOR = 1e-6  # a log axis has no place for a bound of zero


def curves_data(results: Results) -> pd.DataFrame | None:
    """Means over seeds by size, the law fitted to them, and what it foretold.

    Columns: `curve` (the model in words), `part` (error, loss; law: the fit to the errors;
    foretold: the largest size by the fit without it), `images`, `mean`, `low`, `high` (t interval
    of error and loss; of the bootstrap for the others), `seeds`. None where sizes do not vary.
    """
    parts = [_points(curve, fits_of(results)[curve.name]) for curve in curves_of(results)]
    return pd.concat(parts, ignore_index=True) if parts else None


def _points(curve: Curve, fitted: Fitted | Refusal) -> pd.DataFrame:
    tables = []
    for part, values_SN in (("error", curve.error_SN), ("loss", curve.loss_SN)):
        mean_N, half_N = mean_intervals(values_SN)
        tables.append(_table(part, curve.sizes, mean_N, mean_N - half_N, mean_N + half_N))
    if isinstance(fitted, Fitted):
        last = curve.sizes[-1]
        first, end = fitted.sizes[0], MAX_FACTOR * last
        n = np.unique(
            [np.geomspace(first, last, _LAW_POINTS), np.geomspace(last, end, _LAW_POINTS)]
        )
        law_BN = fitted.laws.error(n)
        ends = np.array([power_law.interval(column) for column in law_BN.T])
        tables.append(_table("law", n, law_BN[0], ends[:, 0], ends[:, 1]))
        low, high = fitted.foretold_ends
        tables.append(_table("foretold", [last], [fitted.foretold], [low], [high]))
    return pd.concat(tables).assign(curve=curve.name or "all", seeds=len(curve.seeds))


def _table(part: str, images: object, mean: object, low: object, high: object) -> pd.DataFrame:
    columns = {"images": images, "mean": mean, "low": low, "high": high}
    return pd.DataFrame({"part": part, **{k: np.asarray(v, float) for k, v in columns.items()}})


def draw_curves(data: pd.DataFrame, title: str) -> Figure:
    """Test error and loss on log axes; the law dashed, its hold-out prediction hollow."""
    names = list(data["curve"].unique())
    if len(names) > _MAX_LINES:
        title += f"; the first {_MAX_LINES} of {len(names)}"
    with style.canvas(3.7, title) as figure:
        axes = figure.subplots(1, 2)
        colours = style.colour_of(names[:_MAX_LINES])
        ends: dict[str, list[tuple[float, str, str]]] = {"error": [], "loss": []}
        for number, (name, colour) in enumerate(colours.items()):
            own = data[data["curve"] == name]
            for ax, part in zip(axes, ends, strict=True):
                rows = own[own["part"] == part]
                line = own[own["part"] == "law"] if part == "error" else rows
                last = (rows if line.empty else line)["mean"].iloc[-1]
                ends[part].append((float(last), name, colour))
                label = "mean over seeds" if number == 0 else None
                yerr = np.maximum([rows["mean"] - rows["low"], rows["high"] - rows["mean"]], 0)
                yerr[0] = np.minimum(yerr[0], 0.9 * rows["mean"])
                ax.errorbar(rows["images"], rows["mean"], yerr=yerr, color=colour, marker="o",
                            ms=4, capsize=3, ls="-" if part == "loss" else "", label=label,
                            zorder=3)  # fmt: skip
            _law(axes[0], own, colour, is_first=number == 0)
        for ax, title_y, named in zip(
            axes, ("test error", "test loss (nats)"), ends.values(), strict=True
        ):
            _log_axes(ax)
            ax.set_ylabel(title_y)
            if len(named) > 1:
                style.label_ends(ax, named)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _law(ax: Axes, own: pd.DataFrame, colour: str, *, is_first: bool) -> None:
    """The law with its band, dashed beyond the largest size, and the hold-out point."""
    law, last = own[own["part"] == "law"], own.loc[own["part"] == "error", "images"].max()
    if law.empty:
        return
    ax.fill_between(law["images"], law["low"].clip(lower=_FLOOR), law["high"], color=colour,
                    alpha=0.13, lw=0)  # fmt: skip
    inside = law[law["images"] <= last]
    ax.plot(inside["images"], inside["mean"], color=colour, lw=1.3,
            label="a n⁻ᵇ + c, 95 % band" if is_first else None)  # fmt: skip
    beyond = law[law["images"] >= last]
    ax.plot(beyond["images"], beyond["mean"], color=colour, lw=1.3, ls="--",
            label="not observed" if is_first else None)  # fmt: skip
    held = own[own["part"] == "foretold"]
    yerr = np.maximum([held["mean"] - held["low"], held["high"] - held["mean"]], 0)
    ax.errorbar(held["images"] * 1.07, held["mean"], yerr=yerr, color=colour, marker="D", ms=6,
                mfc="white", capsize=3, ls="", zorder=4,
                label="foretold without the largest size" if is_first else None)  # fmt: skip


def _log_axes(ax: Axes) -> None:
    """Both axes in the logarithm, numbers of images and errors as plain numbers."""
    ax.set(xscale="log", yscale="log", xlabel="training images")
    low, high = ax.get_ylim()
    subs = (1, 2, 3, 5, 7) if high < 30 * low else (1, 3)
    ax.yaxis.set_major_locator(LogLocator(subs=subs))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter("{x:g}")
    _images_axis(ax)


def _images_axis(ax: Axes) -> None:
    ax.set(xscale="log", xlabel="training images")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1, 3)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))


def describe_curves(data: pd.DataFrame) -> Finding:
    """The errors at the ends of each curve."""
    rows = data[data["part"] == "error"]
    return Finding("drawn_sizes", metric="test_error", facts={"ends": _ends(rows, "mean")})


def _ends(rows: pd.DataFrame, column: str) -> list[dict[str, object]]:
    """A column at the smallest and at the largest size of the first curves."""
    curves = itertools.islice(rows.groupby("curve", sort=False), _MAX_LINES)
    return [
        {
            "curve": str(name),
            "smallest": own["images"].iloc[0],
            "largest": own["images"].iloc[-1],
            "first": own[column].iloc[0],
            "last": own[column].iloc[-1],
        }
        for name, own in curves
    ]


def doubling_data(results: Results) -> pd.DataFrame | None:
    """What twice the images take off the error, between neighbouring sizes and by the law.

    Columns: `curve`, `part` (seen: between two sizes that were tried, scaled to a factor of two;
    law), `images` (the smaller size), `share` of the error that goes, `low`, `high`. None where
    sizes do not vary.
    """
    parts = []
    for curve in curves_of(results):
        sizes = np.asarray(curve.sizes, dtype=np.float64)
        halvings_N = np.log2(sizes[1:] / sizes[:-1])
        mean_N, half_N = mean_intervals(np.diff(curve.log_error(), axis=1) / halvings_N)
        gone = [-np.expm1(values) for values in (mean_N, mean_N + half_N, mean_N - half_N)]
        parts.append(_gains(curve, "seen", sizes[:-1], *gone))
        fitted = fits_of(results)[curve.name]
        if isinstance(fitted, Fitted):
            n = np.geomspace(fitted.sizes[0], MAX_FACTOR / 2 * sizes[-1], _LAW_POINTS)
            gain_BN = 1.0 - fitted.laws.error(2 * n) / fitted.laws.error(n)
            ends = np.array([power_law.interval(column) for column in gain_BN.T])
            parts.append(_gains(curve, "law", n, gain_BN[0], ends[:, 0], ends[:, 1]))
    return pd.concat(parts, ignore_index=True) if parts else None


def _gains(
    curve: Curve, part: str, images: Floats, share: Floats, low: Floats, high: Floats
) -> pd.DataFrame:
    columns = {"images": images, "share": share, "low": low, "high": high}
    return pd.DataFrame({"curve": curve.name or "all", "part": part, **columns})


def draw_doubling(data: pd.DataFrame, title: str) -> Figure:
    """Share of the error that goes with twice the images: points as seen, a line by the law."""
    names = list(data["curve"].unique())
    with style.canvas(3.9, title) as figure:
        ax, ends = figure.subplots(), []
        for number, (name, colour) in enumerate(style.colour_of(names[:_MAX_LINES]).items()):
            own = data[data["curve"] == name]
            seen, law = own[own["part"] == "seen"], own[own["part"] == "law"]
            yerr = np.nan_to_num([seen["share"] - seen["low"], seen["high"] - seen["share"]])
            label = "between two sizes, 95 % t interval" if number == 0 else None
            last = (law if len(law) else seen)["share"].iloc[-1]
            ends.append((100 * float(last), name, colour))
            apart = _apart(number, min(len(names), _MAX_LINES))
            ax.errorbar(seen["images"] * apart, 100 * seen["share"], yerr=100 * yerr, color=colour,
                        marker="o", ms=5, capsize=3, ls="", label=label, zorder=3)  # fmt: skip
            if len(law):
                ax.plot(law["images"], 100 * law["share"], color=colour, lw=1.4,
                        label="by the law, 95 % band" if number == 0 else None)  # fmt: skip
                ax.fill_between(law["images"], 100 * law["low"], 100 * law["high"], color=colour,
                                alpha=0.13, lw=0)  # fmt: skip
        ax.axhline(0.0, color="0.6", lw=0.8, zorder=0)
        _images_axis(ax)
        ax.set_xlabel("training images before doubling")
        ax.set_ylabel("test error that goes with twice the images (%)")
        ax.legend(fontsize=9)
        if len(ends) > 1:
            style.label_ends(ax, ends)
    return figure


def describe_doubling(data: pd.DataFrame) -> Finding:
    """What the first and the last step of each curve bring."""
    rows = data[data["part"] == "seen"]
    return Finding("drawn_doubling", metric="test_error", facts={"ends": _ends(rows, "share")})


def rates_data(results: Results) -> pd.DataFrame | None:
    """The best learning rate of each size, with what one rate for all sizes costs there.

    Columns: `curve`, `images`, `rate` (of lowest mean validation loss), `agree` (seeds for which
    the others choose it), `seeds`, `fixed` (one rate for all sizes), `cost` (factor of the test
    error at it, less 1), `low`, `high` (t interval), `lowest` and `highest` rate tried. None where
    sizes or rates do not vary.
    """
    rows = []
    for curve in curves_of(results):
        if len(curve.rates) < 2:
            continue
        lost_SN = curve.log_error(curve.fixed_error_SN) - curve.log_error()
        mean_N, half_N = mean_intervals(lost_SN)
        for k, n in enumerate(curve.sizes):
            low, high = (math.expm1(mean_N[k] + sign * half_N[k]) for sign in (-1, 1))
            rows.append(
                (curve.name or "all", n, curve.rates[curve.best_N[k]], curve.agree_N[k],
                 len(curve.seeds), curve.rates[curve.fixed], math.expm1(mean_N[k]), low, high,
                 curve.rates[0], curve.rates[-1])
            )  # fmt: skip
    columns = ["curve", "images", "rate", "agree", "seeds", "fixed", "cost", "low", "high",
               "lowest", "highest"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns) if rows else None


def draw_rates(data: pd.DataFrame, title: str) -> Figure:
    """Left the best rate by size, larger where more seeds agree; right the cost of one rate."""
    names = list(data["curve"].unique())[:_MAX_LINES]
    colours = style.colour_of(names)
    with style.canvas(3.8, title) as figure:
        left, right = figure.subplots(1, 2)
        for place, name in enumerate(names):
            own, colour = data[data["curve"] == name], colours[name]
            apart = _apart(place, len(names))
            label = "best of each size" if place == 0 else None
            area = 12 + 70 * own["agree"] / own["seeds"]
            left.plot(own["images"] * apart, own["rate"], color=colour, lw=1.2, label=label)
            left.scatter(own["images"] * apart, own["rate"], s=area, color=colour, zorder=3)
            left.plot(1.0 if len(names) == 1 else 1.01 + 0.025 * place, own["fixed"].iloc[0], "<",
                      color=colour, ms=7, transform=left.get_yaxis_transform(), clip_on=False,
                      label="one for all sizes" if place == 0 else None)  # fmt: skip
            yerr = np.nan_to_num([own["cost"] - own["low"], own["high"] - own["cost"]])
            right.errorbar(own["images"] * apart, 100 * own["cost"], yerr=100 * yerr, color=colour,
                           marker="o", ms=5, capsize=3, lw=1.2)  # fmt: skip
        for edge in ("lowest", "highest"):
            ends = data[edge].unique()
            for end in ends:
                left.axhline(end, color="0.6", lw=0.8, ls=":", zorder=0,
                             label="ends of the rates tried" if edge == "lowest" and end == ends[0]
                             else None)  # fmt: skip
        left.set(yscale="log", ylabel="learning rate (dots: larger, more seeds agree)")
        left.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        left.yaxis.set_minor_locator(NullLocator())
        left.yaxis.set_major_formatter("{x:g}")
        right.axhline(0.0, color="0.6", lw=0.8, zorder=0)
        right.set_ylabel("more test error at one rate for all (%)")
        for ax in (left, right):
            _images_axis(ax)
        if len(names) > 1:
            last_costs = data.groupby("curve")["cost"].last()
            style.label_ends(right, [(100 * last_costs[n], n, colours[n]) for n in names])
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _apart(place: int, of: int) -> float:
    """A factor of the number of images that keeps the points of several curves side by side."""
    return float(1.06 ** (place - (of - 1) / 2))


def describe_rates(data: pd.DataFrame) -> Finding:
    """The best rate of each size of each curve."""
    curves = itertools.islice(data.groupby("curve", sort=False), _MAX_LINES)
    best = [
        {"curve": str(name), "best": own[["rate", "images"]].to_dict("records")}
        for name, own in curves
    ]
    return Finding("drawn_rates", metric="val_loss", facts={"curves": best})


def table(results: Results) -> pd.DataFrame:
    """A row per curve and size, as a paper has it; empty where sizes do not vary.

    Columns: `model` (where several), `images`, `seeds`, `rate`, `error`, `low`, `high`, `loss`,
    `cost` of one rate for all sizes, as a share of the error (NaN with a single rate).
    """
    curves, costs = curves_data(results), rates_data(results)
    if curves is None:
        return pd.DataFrame()
    keys = ["curve", "images"]
    wide = curves[curves["part"] == "error"].drop(columns="part")
    loss = curves[curves["part"] == "loss"].rename(columns={"mean": "loss"})[[*keys, "loss"]]
    wide = wide.rename(columns={"mean": "error"}).merge(loss, on=keys)
    if costs is None:
        return wide.assign(rate=math.nan, cost=math.nan)
    return wide.merge(costs[[*keys, "rate", "cost"]], on=keys)


FIGURES: tuple[FigureSpec[Results], ...] = (
    FigureSpec("data_size_curves", "data_size", "Test error and loss against training images",
               curves_data, draw_curves, describe_curves, rank=7),
    FigureSpec("data_size_doubling", "data_size", "Value of doubling the training images",
               doubling_data, draw_doubling, describe_doubling),
    FigureSpec("data_size_rates", "data_size", "Learning rate against training images",
               rates_data, draw_rates, describe_rates),
)  # fmt: skip
