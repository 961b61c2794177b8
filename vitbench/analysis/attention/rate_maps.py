"""The same test images' attention maps at each learning rate, all else equal: one model a rate.

Shape legend: B images, G patches per side, C channels, Y, X pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitbench.analysis import style
from vitbench.analysis.findings.arms import names_of
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.results import Results
from vitbench.words import decimal

NAME = "maps_by_lr.csv"  # in the folder of attention, written beside spread.csv
IMAGES = 4
_MIN_RATES, _MAX_RATES = 2, 12


def trials_of_rates(results: Results, trials: pd.DataFrame) -> dict[str, float]:
    """The best of the trials and those that differ from it in the learning rate alone, with rates.

    Empty below two rates, of a search, and of more rates than a page is wide.
    """
    if trials.empty or not results.is_grid:
        return {}
    best = trials.sort_values("best_val_loss", kind="stable").iloc[0]
    same = pd.Series(True, index=trials.index)
    for name in {*names_of(results), "seed"} - {"lr"}:
        same &= trials[name].eq(best[name]) | (trials[name].isna() & pd.isna(best[name]))
    found = trials[same].drop_duplicates("lr").sort_values("lr")
    if not _MIN_RATES <= len(found) <= _MAX_RATES:
        return {}
    return dict(zip(found["trial_id"].astype(str), found["lr"].astype(float), strict=True))


def write(
    folder: Path, images_BCYX: NDArray[np.uint8], maps: Mapping[float, NDArray[np.float64]]
) -> None:
    """Write the drawn numbers: a row per pixel of an image (mean of its channels, 0 to 255), and
    one per patch of a map (as multiples of uniform attention).

    Args:
        folder: of attention.
        images_BCYX: the images.
        maps: by learning rate, [B, G, G].
    """
    parts = [_long(images_BCYX.mean(axis=1).round(), None)]
    parts += [_long(map_BGG.round(4), lr) for lr, map_BGG in sorted(maps.items())]
    pd.concat(parts, ignore_index=True).to_csv(folder / NAME, index=False)


def _long(values_BYX: NDArray[Any], lr: float | None) -> pd.DataFrame:
    image, y, x = (index.ravel() for index in np.indices(values_BYX.shape))
    columns = {"image": image, "y": y, "x": x, "value": values_BYX.ravel()}
    return pd.DataFrame({"lr": np.nan if lr is None else lr, **columns})


def data(results: Results) -> pd.DataFrame | None:
    """What `write` wrote; None where it did not."""
    path = results.folder / "attention" / NAME
    return pd.read_csv(path) if path.is_file() else None


def draw(data: pd.DataFrame, title: str) -> Figure:
    """A row per image: the image, then its map at each learning rate, in one colour scale."""
    maps = data[data["lr"].notna()]
    rates, count = sorted(maps["lr"].unique()), int(data["image"].max()) + 1
    across = len(rates) + 1
    norm = TwoSlopeNorm(vmin=0.0, vcenter=1.0, vmax=max(2.0, float(maps["value"].max())))
    cell_in = (style.width_in() - 0.9) / across
    with style.canvas(count * cell_in + 0.9, title, grid=None) as figure:
        axes = figure.subplots(count, across, squeeze=False)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for row in range(count):
            image = _square(data[data["lr"].isna()], row)
            axes[row, 0].imshow(image, cmap="gray", vmin=0, vmax=255)
            for column, lr in enumerate(rates, 1):
                square = _square(maps[maps["lr"] == lr], row)
                axes[row, column].imshow(square, cmap=style.DIVERGING, norm=norm)
        for column, text in enumerate(["image", *map(decimal, rates)]):
            axes[0, column].set_title(text, fontsize=8)
        bar = figure.colorbar(ScalarMappable(norm, style.DIVERGING), ax=axes, shrink=0.8, aspect=25)
        bar.set_label("times uniform")
    return figure


def _square(part: pd.DataFrame, image: int) -> NDArray[np.float64]:
    one = part[part["image"] == image]
    return one.pivot(index="y", columns="x", values="value").to_numpy(dtype=float)


def describe(data: pd.DataFrame) -> Finding:
    """The largest weight of a patch at each rate, mean over the images."""
    peaks = data.dropna(subset="lr").groupby(["lr", "image"])["value"].max().groupby("lr").mean()
    return Finding(
        "drawn_maps_by_lr",
        n=int(data["image"].max()) + 1,
        facts={"peaks": peaks.to_dict()},
    )
