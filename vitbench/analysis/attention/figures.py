"""Plates of attention maps (input | map | overlay, as in the paper), and their spread against loss.

Spread is the effective number of patches, exp(entropy) of the last layer's CLS-to-patch map, mean
over test images (arXiv:2303.06296 logs the same entropy), of the weights of the epoch of lowest
validation loss. Losses are of the same epoch: does a wider attention go with a higher training
loss, as the paper concludes?
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitbench.analysis import style
from vitbench.analysis.attention import by_rate, rate_maps
from vitbench.analysis.attention.findings import LOSSES, WIDTH, losses_of, spread_data
from vitbench.analysis.figure_spec import FigureSpec
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.results import Results

_WRONG = "#B03000"
_ACROSS, _BARS = 8, 4
_MAX_GROUPS = 8


@dataclass(frozen=True)
class Shown:
    """One image of a plate.

    Attributes:
        image: uint8 [C, Y, X].
        map: attention over patches [G, G] as multiples of uniform attention.
        probabilities: that the model gives each output.
        truth: number of the right output; None where it is not known.
        name: of the image, e.g. its file; may be empty.
    """

    image: NDArray[np.uint8]
    map: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    truth: int | None = None
    name: str = ""


def save_plate(
    shown: Sequence[Shown],
    outputs: Sequence[str],
    title: str,
    folder: Path,
    name: str,
    of: str = "attention",
) -> list[Path]:
    """Write `plate_<name>.png` and `.pdf`, and each overlay as `single_<name>_<number>.png`.

    A column per image: input, map, overlay, and the probabilities of the likeliest outputs.
    One colour scale for all maps (`of` attention or input gradients), white where one is uniform.
    """
    highest = max(2.0, max(float(np.nanmax(one.map)) for one in shown))
    norm = TwoSlopeNorm(vmin=0.0, vcenter=1.0, vmax=highest)
    columns, blocks = min(_ACROSS, len(shown)), math.ceil(len(shown) / _ACROSS)
    with matplotlib.rc_context({**style.RC, "axes.grid": False}):
        size = (1.25 * columns + 1.6, 4.9 * blocks + 0.7)
        figure = Figure(figsize=size, layout="constrained")
        heights = (1.0, 1.0, 1.0, 0.75) * blocks
        axes = figure.subplots(4 * blocks, columns, squeeze=False, height_ratios=heights)
        for ax in axes.flat:
            ax.set_axis_off()
        for number, one in enumerate(shown):
            top = 4 * (number // columns)
            _draw_column(axes[top : top + 4, number % columns], one, outputs, norm)
        colours = ScalarMappable(norm, style.DIVERGING)
        bar = figure.colorbar(colours, ax=axes, shrink=0.5, aspect=25, location="right")
        bar.set_label(f"{of}, times uniform")
        figure.suptitle(textwrap.fill(title, 14 * columns + 24), fontsize=9)
        paths = style.save_pictures(figure, folder / f"plate_{name}.csv")
        for number, one in enumerate(shown, 1):
            single = Figure(figsize=(2.0, 2.0), layout="constrained")
            ax = single.subplots()
            _overlay(ax, one, norm)
            ax.set_axis_off()
            paths.append(folder / f"single_{name}_{number}.png")
            single.savefig(paths[-1])
    return paths


def _draw_column(
    axes: NDArray[np.object_], one: Shown, outputs: Sequence[str], norm: TwoSlopeNorm
) -> None:
    top, middle, below, bars = axes
    if len(one.image) == 1:
        top.imshow(one.image[0], cmap="gray", vmin=0, vmax=255)
    else:
        top.imshow(one.image.transpose(1, 2, 0))
    predicted = int(one.probabilities.argmax())
    lines = [textwrap.shorten(one.name, 20, placeholder="…")] if one.name else []
    lines.append(textwrap.shorten(outputs[predicted], 20, placeholder="…"))
    if one.truth is not None and one.truth != predicted:
        lines.append(f"is {textwrap.shorten(outputs[one.truth], 17, placeholder='…')}")
    wrong = one.truth is not None and one.truth != predicted
    top.set_title("\n".join(lines), fontsize=8, color=_WRONG if wrong else "black")
    middle.imshow(one.map, cmap=style.DIVERGING, norm=norm)
    _overlay(below, one, norm)
    likeliest = np.argsort(-one.probabilities, kind="stable")[:_BARS]
    bars.set_axis_on()
    bars.barh(range(len(likeliest)), one.probabilities[likeliest], color="0.82", height=0.8)
    for row, output in enumerate(likeliest):
        text = f"{textwrap.shorten(outputs[output], 14, placeholder='…')}: "
        text += f"{one.probabilities[output]:.2f}"
        bars.text(0.03, row, text, va="center", fontsize=7)
    bars.set(xlim=(0, 1), ylim=(_BARS - 0.5, -0.5), xticks=[], yticks=[])
    bars.spines[:].set_visible(False)


def _overlay(ax: Axes, one: Shown, norm: TwoSlopeNorm) -> None:
    """A map over its image in grey."""
    extent = (0, one.image.shape[-1], one.image.shape[-1], 0)
    ax.imshow(one.image.mean(axis=0), cmap="gray", vmin=0, vmax=255, extent=extent)
    # Where attention is uniform the image is left clear.
    strength = np.sqrt(np.abs(np.asarray(norm(one.map)) - 0.5) * 2)
    ax.imshow(
        one.map,
        alpha=0.15 + 0.65 * strength,
        cmap=style.DIVERGING,
        norm=norm,
        extent=extent,
        interpolation="bilinear",
    )


def lifts_of_model(summary: pd.DataFrame) -> list[Finding]:
    """The lift of each region in one model, with intervals over images; asserts nothing."""
    return [
        Finding(
            kind="lift_of_model",
            metric=row["score"],
            effect=row["mean"],
            low=row["low"],
            high=row["high"],
            n=int(row["images"]),
            facts={
                "method": row["method"],
                "region": row["score"].removesuffix("_lift"),
                **{name: row[name] for name in ("margin", "margin_low", "margin_high")},
            },
        )
        for row in summary[summary["score"].str.endswith("_lift")].to_dict("records")
    ]


def table(folder: Path) -> list[dict[str, object]]:
    """Lifts on every region beside their controls, of every trial that was looked at.

    Rows of attention_summary.csv; empty where nothing was exported. `beats_chance`: the lift is
    above that of an untrained network, and the interval of its margin over another image's region
    above 0.
    """
    path = folder / "attention" / "attention_summary.csv"
    if not path.is_file():
        return []
    summary = pd.read_csv(path, dtype={"label": "string"})
    summary["label"] = summary["label"].fillna("")
    columns = ["trial_id", "label", "method", "images", "mean", "low", "high", "margin"]
    columns += ["margin_low", "margin_high"]
    rows: list[dict[str, object]] = []
    for _, part in summary.groupby(["trial_id", "label", "method"], sort=False):
        means = part.set_index("score")["mean"].astype(float)
        for row in part[part["score"].str.endswith("_lift")].to_dict("records"):
            score = row["score"]
            region = score.removesuffix("_lift")
            shown: dict[str, object] = {name: row[name] for name in columns}
            for control in ("untrained", "other_image", "mean_map"):
                shown[control] = means[f"{score}_{control}"]
            shown |= {
                "beats_chance": row["margin_low"] > 0 and row["mean"] > shown["untrained"],
                "method": str(row["method"]).replace("_", " "),
                "region": region.replace("_", " "),
                "pointing": means[f"{region}_pointing"],
                "pointing_chance": means[f"{region}_pointing_other_image"],
            }
            rows.append(shown)
    return rows


def draw_spread(data: pd.DataFrame, title: str) -> Figure:
    """A panel per loss: effective patches against it, a dot per model, a diamond per unit."""
    shown = losses_of(data)
    with style.canvas(4.0, title) as figure:
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        groups = list(data["group"].unique())
        for ax, name in zip(axes, shown, strict=True):
            for group, colour in style.colour_of(groups).items():
                part = data[data["group"] == group]
                ax.plot(part["effective_patches"], part[name], "o", color=colour, ms=4, alpha=0.6)
                middle = (part["effective_patches"].mean(), part[name].mean())
                if len(groups) > _MAX_GROUPS:
                    ax.annotate(str(group), middle, (7, 5), textcoords="offset points", fontsize=7)
                ax.plot(
                    *middle,
                    "D",
                    color=colour,
                    ms=8,
                    mec="black",
                    label=str(group) if len(groups) <= _MAX_GROUPS else None,
                )
            patches = int(data["patches"].max())
            ax.set_xlabel(f"effective patches of {patches}, last layer")
            ax.set_ylabel(textwrap.fill(LOSSES[name], 32))
        if len(groups) <= _MAX_GROUPS:
            handles, texts = axes[0].get_legend_handles_labels()
            figure.legend(handles, texts, loc="outside lower center", ncols=min(4, len(groups)))
    return figure


def describe_spread(data: pd.DataFrame) -> Finding:
    """Mean spread and losses of each unit; what they support is in the findings."""
    losses = losses_of(data)
    means = data.groupby("group", sort=False)[[WIDTH, *losses]].mean()
    facts = {
        "unit": data["unit"].iloc[0],
        "patches": int(data["patches"].max()),
        "losses": [LOSSES[name] for name in losses],
        "means": means.head(_MAX_GROUPS).reset_index().to_dict("records"),
        "columns": losses,
        "more": len(means) - _MAX_GROUPS,
    }
    return Finding("drawn_spread", n=len(data), facts=facts)


def draw_by_rate(data: pd.DataFrame, title: str) -> Figure:
    """A line per group through its means over seeds; above, the spread of uniform attention."""
    groups = list(data["group"].unique())[: by_rate.MAX_GROUPS]
    with style.canvas(3.8, title) as figure:
        ax = figure.subplots()
        colours, ends = style.colour_of(groups), []
        for group, colour in colours.items():
            part = data[data["group"] == group]
            means = part.groupby("lr")[WIDTH].mean()
            ax.plot(part["lr"], part[WIDTH], "o", color=colour, ms=4, alpha=0.5)
            ax.plot(means.index, means, color=colour, marker="_", ms=14, mew=2)
            ends.append((float(means.iloc[-1]), group if len(groups) > 1 else "mean", colour))
        patches = int(data["patches"].max())
        ax.axhline(patches, color="0.4", lw=1, ls=":")
        style.rate_axis(ax, data["lr"])
        ax.set(xlabel="learning rate (dots: a seed each)", ylim=(0, 1.06 * patches))
        ax.set_ylabel(f"effective patches of {patches}, last layer")
        style.label_ends(ax, [*ends, (float(patches), "uniform", "0.4")])
    return figure


def _recorded(data: pd.DataFrame) -> str:
    """How many models can be shown: some have no attention, or end without a loss."""
    return f"; {len(data):,} with recorded attention"


FIGURES: tuple[FigureSpec[Results], ...] = (
    FigureSpec("attention_spread", "attention", "Spread of attention against loss", spread_data,
               draw_spread, describe_spread, subtitle_end=_recorded),
    FigureSpec("attention_by_lr", "attention", "Attention against learning rate", by_rate.data,
               draw_by_rate, by_rate.describe, subtitle_end=_recorded),
    FigureSpec("attention_maps_by_lr", "attention", "The same images at each learning rate",
               rate_maps.data, rate_maps.draw, rate_maps.describe),
)  # fmt: skip
