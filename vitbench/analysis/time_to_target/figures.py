"""Figures of speed: epochs to a stated validation accuracy, performance profiles."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitbench.analysis import style
from vitbench.analysis.figure_spec import FigureSpec
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.render import spelled_out
from vitbench.analysis.results import Results
from vitbench.analysis.time_to_target import numbers as speed

_MAX_LINES = 6


def target_data(results: Results) -> pd.DataFrame | None:
    """The Kaplan-Meier curve of every arm; None where no target is stated.

    Columns: `arm` (lowest median first), `models`, `median`, `epochs`, `share` (arrived by then),
    `at_risk`, `arrivals`, `censored`, `target`. Every arm begins with a row at epoch 0.
    """
    times, arms = speed.times_of(results), speed.arms_of(results)
    if times is None or arms is None:
        return None
    place = {arm: number for number, arm in enumerate(arms["arm"])}
    curves = speed.curves(times)
    order = curves["arm"].map(place).argsort(kind="stable")
    return curves.iloc[order].reset_index(drop=True).assign(target=results.target)


def draw_target(data: pd.DataFrame, title: str) -> Figure:
    """A staircase per arm: the estimated share that has arrived, ticks where some are censored."""
    arms = data["arm"].nunique()
    if arms > _MAX_LINES:
        title += f"; the {_MAX_LINES} lowest medians of {arms}"
    with style.canvas(4.0, title) as figure:
        labels = data["arm"] + " (n = " + data["models"].astype(str) + ")"
        ax, ends = _staircases(figure, data, "epochs", labels)
        ax.axhline(0.5, color="0.6", lw=0.8, ls=":", zorder=0)
        ax.set_xlim(0, 1.04 * float(data["epochs"].max()))
        style.whole_numbers(ax, "epochs; ticks: models that were last seen before they arrived")
        ax.set_ylabel(f"share that reached {data['target'].iloc[0]:g} (Kaplan-Meier)")
        style.label_ends(ax, ends)
    return figure


def _staircases(
    figure: Figure, data: pd.DataFrame, x: str, labels: pd.Series
) -> tuple[Axes, list[tuple[float, str, str]]]:
    """`share` against `x` for each of the first arms, with ticks where trials are censored.

    Returns the axes, and the ends of the lines for `style.label_ends`.
    """
    ax = figure.subplots()
    arms = list(data["arm"].unique())
    few = len(arms) <= len(style.COLOURS)  # then the same in both figures, else apart in each
    colours = style.colour_of(arms if few else arms[:_MAX_LINES])
    end = 1.04 * float(data[x].max())
    ends = []
    for arm, colour in list(colours.items())[:_MAX_LINES]:
        part = data[data["arm"] == arm]
        label = spelled_out(labels[part.index[0]])
        if part["share"].iloc[-1] == 1:  # all have arrived, and stay
            part = pd.concat([part, part.tail(1).assign(**{x: end, "censored": 0})])
        ax.step(part[x], part["share"], where="post", color=colour, lw=2)
        ends.append((float(part["share"].iloc[-1]), label, colour))
        if "censored" in part:
            cut = part[part["censored"] > 0]
            ax.plot(cut[x], cut["share"], "|", ms=9, color=colour)
    ax.set_ylim(-0.02, 1.04)
    return ax, ends


def describe_target(data: pd.DataFrame) -> Finding:
    """The medians of the first arms."""
    medians = data.groupby("arm", sort=False)["median"].first().head(8).to_dict()
    facts = {"target": data["target"].iloc[0], "medians": medians}
    return Finding("drawn_target", metric="epochs_to_target", facts=facts)


def profile_data(results: Results) -> pd.DataFrame | None:
    """The performance profiles; None without a target, empty below two arms or three workloads."""
    times = speed.times_of(results)
    if times is None:
        return None
    return speed.profile(speed.ratios(times)).assign(target=results.target)


def draw_profile(data: pd.DataFrame, title: str) -> Figure:
    """A staircase per arm: the share of workloads on which it is at most tau times the fastest."""
    with style.canvas(3.9, title) as figure:
        labels = data["arm"] + " (B = " + data["score"].map("{:.2f}".format) + ")"
        ax, ends = _staircases(figure, data, "tau", labels)
        ax.set(xlim=(1, speed.R_MAX), ylabel=f"share of {data['workloads'].iloc[0]} workloads")
        ax.set_xlabel("tau: epochs to the target over those of the fastest arm")
        style.label_ends(ax, ends)
    return figure


def describe_profile(data: pd.DataFrame) -> Finding:
    """The score of each arm."""
    scores = data.groupby("arm", sort=False)["score"].first().head(8).to_dict()
    return Finding("drawn_profile", n=int(data["workloads"].iloc[0]), facts={"scores": scores})


def _at_target(data: pd.DataFrame) -> str:
    return f" {data['target'].iloc[0]:g}"


FIGURES: tuple[FigureSpec[Results], ...] = (
    FigureSpec("time_to_target", "speed", "Epochs to validation accuracy", target_data,
               draw_target, describe_target, _at_target),
    FigureSpec("performance_profile", "speed", "Performance profile at validation accuracy",
               profile_data, draw_profile, describe_profile, _at_target),
)  # fmt: skip
