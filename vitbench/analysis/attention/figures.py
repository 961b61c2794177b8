"""Plates of attention maps (input | map | overlay, as in the paper), and their spread against loss.

Spread is the effective number of patches, exp(entropy) of the last layer's CLS-to-patch map, mean
over test images (arXiv:2303.06296 logs the same entropy), of the weights of the epoch of lowest
validation loss. Losses are of the same epoch: does a wider attention go with a higher training
loss, as the paper concludes?
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitbench.analysis import style
from vitbench.analysis.attention.findings import LOSSES, associations, losses_of, spread_data
from vitbench.analysis.figure_spec import FigureSpec
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.render import sentence
from vitbench.analysis.results import Results

_CMAP = "viridis"
_MAX_GROUPS = 8


def save_plate(
    images: NDArray[np.uint8],
    map_BM: NDArray[np.float64],
    captions: Sequence[str],
    title: str,
    folder: Path,
    name: str,
) -> list[Path]:
    """Write `plate_<name>.png` and `.pdf`, and each overlay as `single_<name>_<number>.png`.

    Args:
        images: uint8 [B, C, Y, X].
        map_BM: attention over patches, rows sum to 1.
        captions: prediction and truth of each image.
        title: of the plate.
    """
    grid = round(map_BM.shape[1] ** 0.5)
    maps = map_BM.reshape(-1, grid, grid)
    with matplotlib.rc_context({**style.RC, "axes.grid": False}):
        figure = Figure(figsize=(6.6, 1.9 * len(images) + 0.9), layout="constrained")
        axes = figure.subplots(len(images), 3, squeeze=False)
        for row, image, square, caption in zip(axes, images, maps, captions, strict=True):
            if len(image) == 1:
                row[0].imshow(image[0], cmap="gray", vmin=0, vmax=255)
            else:
                row[0].imshow(image.transpose(1, 2, 0))
            row[1].imshow(square, cmap=_CMAP, vmin=0)
            _overlay(row[2], image, square)
            row[0].set_ylabel(textwrap.fill(caption, 16), rotation=0, ha="right", va="center")
            for ax in row:
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
        for ax, heading in zip(axes[0], ("input", "attention", "overlay"), strict=True):
            ax.set_title(heading)
        figure.suptitle(textwrap.fill(title, 78), fontsize=9)
        paths = style.save_pictures(figure, folder / f"plate_{name}.csv")
        for number, (image, square) in enumerate(zip(images, maps, strict=True), 1):
            single = Figure(figsize=(2.0, 2.0), layout="constrained")
            ax = single.subplots()
            _overlay(ax, image, square)
            ax.set_axis_off()
            paths.append(folder / f"single_{name}_{number}.png")
            single.savefig(paths[-1])
    return paths


def _overlay(ax: Axes, image: NDArray[np.uint8], square: NDArray[np.float64]) -> None:
    """A map over its image in grey."""
    extent = (0, image.shape[-1], image.shape[-1], 0)
    ax.imshow(image.mean(axis=0), cmap="gray", vmin=0, vmax=255, extent=extent)
    ax.imshow(square, cmap=_CMAP, vmin=0, alpha=0.55, extent=extent, interpolation="bilinear")


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

    Rows of attention_summary.csv and of the mean over images of attention.parquet; empty where
    nothing was exported.
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
                "region": region.replace("_", " "),
                "pointing": means[f"{region}_pointing"],
                "pointing_chance": means[f"{region}_pointing_other_image"],
            }
            rows.append(shown)
    return rows


def draw_spread(data: pd.DataFrame, title: str) -> Figure:
    """A panel per loss: effective patches against it, a dot per model, a diamond per unit."""
    shown = losses_of(data)
    with style.canvas(4.9 * len(shown) + 0.6, 4.4, title, wrap=50 * len(shown)) as figure:
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        groups = list(data["group"].unique())
        for ax, name in zip(axes, shown, strict=True):
            for group, colour in style.colour_of(groups).items():
                part = data[data["group"] == group]
                ax.plot(part["effective_patches"], part[name], "o", color=colour, ms=4, alpha=0.6)
                ax.plot(
                    part["effective_patches"].mean(),
                    part[name].mean(),
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


def caption(data: pd.DataFrame) -> str:
    """What the data support of "the wider the attention, the higher the training loss"."""
    return " ".join(map(sentence, associations(data)))


FIGURES: tuple[FigureSpec[Results], ...] = (
    FigureSpec("attention_spread", "attention", "Spread of attention against loss", spread_data,
               draw_spread, caption),
)  # fmt: skip
