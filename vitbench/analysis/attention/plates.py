"""Plates of attention maps (input | map | overlay, as in the paper) and their summary in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vitbench.analysis import style
from vitbench.analysis.findings.finding import Finding

_CMAP = "viridis"


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
    figure = style.new_figure(6.6, 1.9 * len(images) + 0.9)
    with matplotlib.rc_context({**style.RC, "axes.grid": False}):
        axes = figure.subplots(len(images), 3, squeeze=False)
        for row, image, one_map, caption in zip(axes, images, map_BM, captions, strict=True):
            square = one_map.reshape(grid, grid)
            _picture(row[0], image)
            row[1].imshow(square, cmap=_CMAP, vmin=0)
            _overlay(row[2], image, square)
            row[0].set_ylabel(style.wrapped(caption, 16), rotation=0, ha="right", va="center")
            for ax in row:
                ax.set_xticks([])
                ax.set_yticks([])
                ax.spines[:].set_visible(False)
        for ax, heading in zip(axes[0], ("input", "attention", "overlay"), strict=True):
            ax.set_title(heading)
        figure.suptitle(style.wrapped(title, 78), fontsize=9)
        paths = [folder / f"plate_{name}.{suffix}" for suffix in ("png", "pdf")]
        figure.savefig(paths[0])
        figure.savefig(paths[1], metadata={"CreationDate": None})
        for number, (image, one_map) in enumerate(zip(images, map_BM, strict=True), 1):
            single = style.new_figure(2.0, 2.0)
            ax = single.subplots()
            _overlay(ax, image, one_map.reshape(grid, grid))
            ax.set_axis_off()
            paths.append(folder / f"single_{name}_{number}.png")
            single.savefig(paths[-1])
    return paths


def lifts_of_model(summary: pd.DataFrame) -> list[Finding]:
    """The lift of each region in one model, with intervals over images; asserts nothing."""
    return [
        Finding(
            kind="lift_of_model",
            metric=str(row["score"]),
            effect=row["mean"],
            low=row["low"],
            high=row["high"],
            n=int(row["images"]),
            facts={
                "method": row["method"],
                "region": str(row["score"]).removesuffix("_lift"),
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
    attention = folder / "attention"
    if not (attention / "attention_summary.csv").is_file():
        return []
    summary = pd.read_csv(attention / "attention_summary.csv", dtype={"label": "string"})
    summary["label"] = summary["label"].fillna("")
    found: list[dict[str, object]] = []
    for _, part in summary.groupby(["trial_id", "label", "method"], sort=False):
        means = dict(zip(part["score"], part["mean"].astype(float), strict=True))
        for row in part[part["score"].str.endswith("_lift")].to_dict("records"):
            score = str(row["score"])
            region = score.removesuffix("_lift")
            found.append(
                {
                    **{name: row[name] for name in ("trial_id", "label", "method", "images")},
                    **{name: float(row[name]) for name in _LIFT_COLUMNS},
                    **{control: means[f"{score}_{control}"] for control in _CONTROLS},
                    "region": region.replace("_", " "),
                    "pointing": means[f"{region}_pointing"],
                    "pointing_chance": means[f"{region}_pointing_other_image"],
                }
            )
    return found


_CONTROLS = ("untrained", "other_image", "mean_map")
_LIFT_COLUMNS = ("mean", "low", "high", "margin", "margin_low", "margin_high")


def _picture(ax: Axes, image: NDArray[np.uint8]) -> None:
    if image.shape[0] == 1:
        ax.imshow(image[0], cmap="gray", vmin=0, vmax=255)
    else:
        ax.imshow(image.transpose(1, 2, 0))


def _overlay(ax: Axes, image: NDArray[np.uint8], square: NDArray[np.float64]) -> None:
    side = image.shape[-1]
    grey = image.mean(axis=0)
    ax.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(0, side, side, 0))
    ax.imshow(
        square, cmap=_CMAP, vmin=0, alpha=0.55, extent=(0, side, side, 0), interpolation="bilinear"
    )
