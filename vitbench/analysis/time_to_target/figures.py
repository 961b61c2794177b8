"""Figures of speed: epochs to a stated validation accuracy, performance profiles."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitbench.analysis import style
from vitbench.analysis.figure_spec import FigureSpec, at_target
from vitbench.analysis.results import Results
from vitbench.analysis.time_to_target import numbers as speed

_MAX_LINES = 6


def target_data(results: Results) -> pd.DataFrame | None:
    """The Kaplan-Meier curve of every arm; None where no target is stated.

    Columns: `arm` (lowest median first), `models`, `median`, `epochs`, `share` (arrived by then),
    `at_risk`, `arrivals`, `censored`, `target`. Every arm begins with a row at epoch 0.
    """
    times = speed.times_of(results)
    if times is None:
        return None
    parts = []
    for arm in speed.by_arm(times)["arm"]:
        part = times[times["arm"] == arm]
        curve = speed.arrivals(part)
        steps = pd.DataFrame(
            {
                "epochs": [0.0, *curve.time],
                "share": [0.0, *(1.0 - curve.waiting)],
                "at_risk": [len(part), *curve.at_risk],
                "arrivals": [0, *curve.arrived],
                "censored": [0, *curve.censored],
            }
        )
        parts.append(steps.assign(arm=arm, models=len(part), median=curve.median))
    return pd.concat(parts, ignore_index=True).assign(target=results.target)


def draw_target(data: pd.DataFrame, title: str) -> Figure:
    """A staircase per arm: the estimated share that has arrived, ticks where some are censored."""
    arms = list(data["arm"].unique())
    shown = arms[:_MAX_LINES]
    if len(arms) > len(shown):
        title += f"; the {len(shown)} lowest medians of {len(arms)}"
    with style.canvas(7.5, 4.2, title, wrap=84) as figure:
        ax = figure.subplots()
        for arm, colour in style.colour_of(shown).items():
            part = data[data["arm"] == arm]
            models = int(part["models"].iloc[0])
            label = f"{arm} (n = {models})"
            ax.step(part["epochs"], part["share"], where="post", color=colour, lw=2, label=label)
            cut = part[part["censored"] > 0]
            ax.plot(cut["epochs"], cut["share"], ls="", marker="|", ms=9, color=colour)
        ax.axhline(0.5, color="0.6", lw=0.8, ls=":", zorder=0)
        ax.set_xlim(0, 1.04 * float(data["epochs"].max()))
        ax.set_ylim(-0.02, 1.02)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        target = float(data["target"].iloc[0])
        ax.set_xlabel("epochs; ticks: models that were last seen before they arrived")
        ax.set_ylabel(f"share that reached {target:g} (Kaplan-Meier)")
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def describe_target(data: pd.DataFrame) -> str:
    """The medians of the first arms."""
    medians = data.groupby("arm", sort=False)["median"].first()
    parts = [
        f"{arm}: {median:g} epochs" if math.isfinite(median) else f"{arm}: not reached by half"
        for arm, median in list(medians.items())[:8]
    ]
    return (
        f"Kaplan-Meier median of the epochs to validation accuracy {data['target'].iloc[0]:g}. "
        f"{', '.join(parts)}."
    )


def profile_data(results: Results) -> pd.DataFrame | None:
    """The performance profiles; None without a target, empty below two arms or three workloads."""
    times = speed.times_of(results)
    if times is None:
        return None
    return speed.profile(speed.ratios(times)).assign(target=results.target)


def draw_profile(data: pd.DataFrame, title: str) -> Figure:
    """A staircase per arm: the share of workloads on which it is at most tau times the fastest."""
    with style.canvas(7.5, 3.9, title, wrap=84) as figure:
        ax = figure.subplots()
        arms = list(data["arm"].unique())[:_MAX_LINES]
        for arm, colour in style.colour_of(arms).items():
            part = data[data["arm"] == arm]
            label = f"{arm} (B = {part['score'].iloc[0]:.2f})"
            ax.step(part["tau"], part["share"], where="post", color=colour, lw=2, label=label)
        ax.set_xlim(1, speed.R_MAX)
        ax.set_ylim(-0.02, 1.02)
        count = int(data["workloads"].iloc[0])
        ax.set_xlabel("tau: epochs to the target over those of the fastest arm")
        ax.set_ylabel(f"share of {count} workloads")
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def describe_profile(data: pd.DataFrame) -> str:
    """The score of each arm."""
    scores = data.groupby("arm", sort=False)["score"].first()
    parts = [f"{arm}: {value:.2f}" for arm, value in list(scores.items())[:8]]
    return (
        f"Score over {int(data['workloads'].iloc[0])} workloads, 1 being the fastest on all. "
        f"{', '.join(parts)}."
    )


FIGURES: tuple[FigureSpec[Results], ...] = (
    FigureSpec(
        "time_to_target", "speed", "Epochs to validation accuracy", target_data, draw_target,
        describe_target, at_target,
    ),
    FigureSpec(
        "performance_profile", "speed", "Performance profile at validation accuracy", profile_data,
        draw_profile, describe_profile, at_target,
    ),
)  # fmt: skip
