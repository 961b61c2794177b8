"""Learning curves as inline SVG: whole without JavaScript, with values on hover where there is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd
from markupsafe import Markup

from vitbench.analysis import page, style
from vitbench.analysis.findings.arms import by_settings, shape_names
from vitbench.analysis.learning_rate.figures import (
    SPLITS,
    Lines,
    curves_data,
    lines_of,
    mean_curves,
)
from vitbench.analysis.results import Results

WIDTH, HEIGHT = 420, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, WIDTH - 10, 26, HEIGHT - 36
MAX_PANELS = 18
_MAX_DOTS = 40


@dataclass(frozen=True)
class Chart:
    """Panels that share a legend: (label, colour) per series, and one SVG per panel."""

    what: str  # a series is: `learning rate`, or `setting`
    legend: list[tuple[str, str]]
    panels: list[Markup]
    left_out: int


def of_grid(results: Results, most: int = MAX_PANELS) -> Chart | None:
    """`learning_curves` of a grid; None before its first epoch.

    Where panels of one combination of settings are all that is wanted, the others are not averaged.
    """
    trials, epochs, names = results.trials, results.epochs, shape_names(results)
    if epochs.empty:
        return None
    if most > len(SPLITS) or not names or trials["lr"].nunique() == 1:
        means = curves_data(results)
        return None if means is None else learning_curves(means, most)
    cells = by_settings(trials, names, sort=True)
    shown = next((c for _, c in cells if epochs["trial_id"].isin(c["trial_id"]).any()), trials)
    of_shown = epochs[epochs["trial_id"].isin(shown["trial_id"])]
    chart = learning_curves(mean_curves(of_shown, shown, [*names, "lr"]), most)
    return replace(chart, left_out=len(cells) - 1)


def learning_curves(data: pd.DataFrame, most: int = MAX_PANELS) -> Chart:
    """A panel per split and combination of settings; a line per learning rate, or per setting.

    Args:
        data: of a grid, from learning_rate.figures.curves_data.
        most: panels, at least one for each split.
    """
    lines = lines_of(data, sort=True)
    shown, drawn = lines.cells[: max(1, most // max(1, len(lines.splits)))], []
    for heading, part in shown:
        # The axis ends above everything, unless one line runs away from all the others.
        median = float(part.groupby(["line", "split"])["mean"].first().median())
        top = min(float(part["high"].max()), max(style.ALWAYS_SHOWN_NATS, 3 * median))
        for split in lines.splits:
            rows = part[part["split"] == split].sort_values("epoch")
            title = f"{heading + ': ' if heading else ''}{SPLITS[split]} loss"
            drawn.append(_panel(title, rows, lines, top))
    return Chart(lines.what, list(lines.colours.items()), drawn, len(lines.cells) - len(shown))


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values between low and high, about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _panel(title: str, data: pd.DataFrame, shown: Lines, top: float) -> Markup:
    first, last = (int(data["epoch"].min()), int(data["epoch"].max())) if len(data) else (0, 1)
    span, top = max(last - first, 1), top if math.isfinite(top) and top > 0 else 1.0

    def x(epoch: float) -> float:
        return round(_LEFT + (epoch - first) / span * (_RIGHT - _LEFT), 1)

    def y(loss: float) -> float:
        height = round(_TOP + (1 - loss / (1.04 * top)) * (_BOTTOM - _TOP), 1)
        return max(float(_TOP - 4), height)  # beyond the axis: along its upper edge

    line_of = dict(list(data.dropna(subset=["mean"]).groupby("line")))
    lines, values = [], []
    for number, (name, colour) in enumerate(shown.colours.items()):
        if name not in line_of:
            continue
        line, label = line_of[name], f"lr {name}" if shown.what == "learning rate" else name
        epochs, means = [int(epoch) for epoch in line["epoch"]], line["mean"].tolist()
        places = list(zip(map(x, epochs), map(y, means), epochs, means, strict=True))
        edge = [*zip(map(x, epochs), map(y, line["high"]), strict=True)]
        edge += [*zip(map(x, epochs), map(y, line["low"]), strict=True)][::-1]
        lines.append(
            {
                "number": number,
                "label": label,
                "colour": colour,
                "points": _points(place[:2] for place in places),
                "band": _points(edge) if line["seeds"].max() >= 3 else "",
                "dots": places if len(places) <= _MAX_DOTS else [],
            }
        )
        seen = [float(f"{v:.5g}") for v in means]
        values.append({"s": number, "label": label, "e": epochs, "v": seen})
    chart = {"first": first, "last": last, "left": _LEFT, "right": _RIGHT, "lines": values}
    content = {
        "title": title,
        "what": shown.what,
        "chart": chart,
        "payload": json.dumps(chart, separators=(",", ":")),
        "lines": lines,
        "x_ticks": [(x(tick), tick) for tick in ticks(first, last) if tick == int(tick)],
        "y_ticks": [(y(tick), tick) for tick in ticks(0, top)],
        "width": WIDTH,
        "height": HEIGHT,
        "top": _TOP,
        "bottom": _BOTTOM,
    }
    return Markup(page.render("panel.html", content))  # nosec B704


def _points(places: Iterable[tuple[float, ...]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)
