"""Learning curves as inline SVG: whole without JavaScript, with values on hover where there is."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup, escape

from vitbench.analysis import style
from vitbench.analysis.findings.arms import by_settings, in_words

WIDTH, HEIGHT = 460, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 26, 36
_FIXED = ("lr", "epoch", "split", "mean", "low", "high", "seeds", "diverged")
MAX_PANELS = 12
_MAX_DOTS = 40


@dataclass(frozen=True)
class Chart:
    """Panels that share a legend: (label, colour) per series, and one SVG per panel."""

    legend: list[tuple[str, str]]
    panels: list[Markup]
    left_out: int


def learning_curves(data: pd.DataFrame) -> Chart:
    """Two panels (train, test) per combination of settings; a line per learning rate.

    Args:
        data: of a grid, from learning_rate.curves.curves_data.
    """
    names = [name for name in data.columns if name not in _FIXED]
    rates = sorted(data["lr"].unique(), reverse=True)
    colours = style.colour_of(rates)
    cells = by_settings(data, names, sort=True)
    shown, drawn = cells[: MAX_PANELS // 2], []
    for cell, part in shown:
        heading = in_words(names, cell)
        top = _top(part)
        for split in ("train", "test"):
            lines = {
                number: part[(part["lr"] == lr) & (part["split"] == split)].sort_values("epoch")
                for number, lr in enumerate(rates)
            }
            title = f"{heading}: {split} loss" if heading else f"{split} loss"
            drawn.append(_panel(title, lines, rates, colours, top))
    legend = [(f"{lr:g}", colours[lr]) for lr in rates]
    return Chart(legend, drawn, len(cells) - len(shown))


def _top(part: pd.DataFrame) -> float:
    """Where the axis ends: above everything, unless one line runs away from all the others."""
    first = part.groupby(["lr", "split"])["mean"].first()
    return min(float(part["high"].max()), max(style.ALWAYS_SHOWN_NATS, 3 * float(first.median())))


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values between low and high, about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _panel(
    title: str,
    lines: dict[int, pd.DataFrame],
    rates: list[float],
    colours: dict[float, str],
    top: float,
) -> Markup:
    last = max((int(line["epoch"].max()) for line in lines.values() if len(line)), default=1)
    first = min((int(line["epoch"].min()) for line in lines.values() if len(line)), default=0)
    span, top = max(last - first, 1), top if math.isfinite(top) and top > 0 else 1.0

    def x(epoch: float) -> float:
        return round(_LEFT + (epoch - first) / span * (WIDTH - _LEFT - _RIGHT), 1)

    def y(loss: float) -> float:
        height = round(_TOP + (1 - loss / (1.04 * top)) * (HEIGHT - _TOP - _BOTTOM), 1)
        return max(float(_TOP - 4), height)  # beyond the axis: along its upper edge

    parts = [f'<text x="{WIDTH / 2}" y="16" class="t">{escape(title)}</text>']
    for value in ticks(0, top):
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(value)}" y2="{y(value)}" class="g"/>'
            f'<text x="{_LEFT - 5}" y="{y(value) + 4}" class="y">{value:g}</text>'
        )
    for value in ticks(first, last):
        if value == int(value):
            parts.append(
                f'<text x="{x(value)}" y="{HEIGHT - _BOTTOM + 15}" class="x">{value:g}</text>'
            )
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 5}" class="x">epoch</text>')
    parts.append(
        f'<text transform="translate(11 {HEIGHT / 2}) rotate(-90)" class="x">'
        f"cross entropy (nats)</text>"
    )
    values: list[dict[str, object]] = []
    for number, line in lines.items():
        known = line.dropna(subset=["mean"])
        if known.empty:
            continue
        label, colour = f"{rates[number]:g}", colours[rates[number]]
        epochs = [int(e) for e in known["epoch"]]
        means = [float(v) for v in known["mean"]]
        points = " ".join(f"{x(e)},{y(v)}" for e, v in zip(epochs, means, strict=True))
        inner = ""
        if int(known["seeds"].max()) >= 3:
            there = [f"{x(e)},{y(v)}" for e, v in zip(epochs, known["high"], strict=True)]
            back = [f"{x(e)},{y(v)}" for e, v in zip(epochs, known["low"], strict=True)]
            edge = " ".join(there + back[::-1])
            inner += f'<polygon points="{edge}" fill="{colour}" opacity=".14"/>'
        inner += f'<polyline points="{points}" stroke="{colour}" class="l"/>'
        if len(epochs) <= _MAX_DOTS:
            inner += "".join(
                f'<circle cx="{x(e)}" cy="{y(v)}" r="2.6" fill="{colour}">'
                f"<title>lr {label}, epoch {e}: {v:.4g}</title></circle>"
                for e, v in zip(epochs, means, strict=True)
            )
        parts.append(f'<g data-series="{number}">{inner}</g>')
        values.append(
            {"s": number, "label": label, "e": epochs, "v": [float(f"{v:.5g}") for v in means]}
        )
    geometry = {"first": first, "last": last, "left": _LEFT, "right": WIDTH - _RIGHT}
    payload = escape(json.dumps({**geometry, "lines": values}, separators=(",", ":")))
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} by epoch, '
        f'a line for each learning rate" data-chart="{payload}">'
        f'{"".join(parts)}<line class="cursor" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/></svg>'
    )
