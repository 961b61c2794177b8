"""Figures of speed: epochs to a stated validation accuracy, performance profiles."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitbench.analysis import style
from vitbench.analysis.figure_spec import FigureSpec, at_target
from vitbench.analysis.results import Results
from vitbench.analysis.time_to_target import numbers as speed

_MAX_ARMS = 24
_MAX_LINES = 6


def target_data(results: Results) -> pd.DataFrame | None:
    """The times of all trials, arms in the order of speed; None where no target is stated."""
    times = speed.times_of(results)
    if times is None:
        return None
    order = {arm: n for n, arm in enumerate(speed.by_arm(times)["arm"])}
    times = times.assign(target=results.target)
    return times.sort_values("arm", key=lambda arms: arms.map(order), kind="stable")


def draw_target(data: pd.DataFrame, title: str) -> Figure:
    """A row per arm, a dot per trial, a bar at the median; hollow dots never arrived."""
    arms = list(data["arm"].unique())
    shown = arms[:_MAX_ARMS]
    if len(arms) > len(shown):
        title += f"; the fastest {len(shown)} of {len(arms)}"
    with style.canvas(8.0, 1.5 + 0.32 * len(shown), title, wrap=84, grid="x") as figure:
        ax = figure.subplots()
        edge = 1.08 * float(data["last"].max())
        for number, arm in enumerate(shown):
            part = data[data["arm"] == arm]
            count = len(part)
            spread = 0.12 * (np.arange(count) - (count - 1) / 2) / max(1, (count - 1) / 2)
            times = part["epochs"].to_numpy(dtype=float)
            there = np.isfinite(times)
            for kind, dots, label in (
                (style.MARKS["finished"], there, "reached"),
                (style.MARKS["stopped"], ~there, "not reached in its epochs"),
            ):
                ax.plot(
                    np.where(there, times, edge)[dots],
                    number + spread[dots],
                    ls="",
                    ms=5,
                    alpha=0.8,
                    color=style.COLOURS[0],
                    label=label,
                    **kind,
                )
            middle = float(speed.by_arm(part)["epochs"].iloc[0])
            if np.isfinite(middle):
                ax.vlines(
                    middle,
                    number - 0.3,
                    number + 0.3,
                    color=style.COLOURS[1],
                    lw=2.5,
                    label="median",
                )
        ax.set_yticks(range(len(shown)), shown)
        ax.set_ylim(len(shown) - 0.5, -0.5)
        ax.set_xlim(0, 1.04 * edge)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        target = float(data["target"].iloc[0])
        ax.set_xlabel(f"epochs until the validation accuracy is {target:g}")
        handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles)
        )
    return figure


def describe_target(data: pd.DataFrame) -> str:
    """The median epochs of the fastest arms."""
    parts = [
        f"{row['arm']}: {row['epochs']:g} epochs"
        if math.isfinite(row["epochs"])
        else f"{row['arm']}: not reached by most"
        for row in speed.by_arm(data).head(8).to_dict("records")
    ]
    return f"Median epochs to validation accuracy {data['target'].iloc[0]:g}. {', '.join(parts)}."


def profile_data(results: Results) -> pd.DataFrame | None:
    """The performance profiles; None without a target, empty below two arms or three workloads."""
    times = target_data(results)
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
