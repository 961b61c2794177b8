"""Predictions of single test images: reading them, and intervals over seeds and images at once."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from vitbench.analysis.results import Results
from vitbench.analysis.statistics import Floats, Interval
from vitbench.records import tables
from vitbench.storage import PREDICTIONS

_DRAWS = 2_000


def predictions(results: Results, trial_id: str) -> pd.DataFrame:
    """What a model says of each test image at its best and its last epoch.

    Columns: `epoch`, `test_index`, `label` (of binary outputs), `truth`, `predicted`,
    `probability` (of the class predicted, or of the label), `loss` (nats). Empty where none were
    kept (`evaluation.predictions: false`, or an earlier version).
    """
    path = results.folder / PREDICTIONS / f"{trial_id}.parquet"
    if not path.is_file():
        return pd.DataFrame(columns=["epoch", "test_index", "truth", "predicted", "loss"])
    return tables.read(path)


def by_seed_and_image(results: Results, trial_ids: list[str], column: str) -> pd.DataFrame:
    """One column of the last epoch's predictions: a row per trial, a column per test image.

    `column` is a column of `predictions`, or `correct`: whether `predicted` is the `truth`. Models
    of several labels have the mean over their labels.
    """
    rows = {}
    for trial_id in trial_ids:
        table = predictions(results, trial_id)
        last = table[table["epoch"] == table["epoch"].max()]
        last = last.assign(correct=(last["predicted"] == last["truth"]).astype(float))
        rows[trial_id] = last.groupby("test_index")[column].mean()
    return pd.DataFrame(rows).T


def two_way_interval(values_SN: Floats, *, draws: int = _DRAWS, seed: int = 0) -> Interval:
    """Mean over S seeds and N images with a 95 % interval for new seeds and new images.

    Seeds and images are each drawn with replacement and weigh a cell by the product of their
    counts (Owen 2007, doi:10.1214/07-AOAS122); the interval is the mean +/- the 97.5 % quantile of
    t with S - 1 degrees of freedom times the standard deviation of the weighted means.

    Raises:
        ValueError: with fewer than two seeds or images, from which no spread can be drawn.
    """
    seeds, images = values_SN.shape
    if seeds < 2 or images < 2:
        raise ValueError(f"{seeds} seeds and {images} images: two of each are the fewest")
    rng = np.random.default_rng(seed)
    share_RS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    means = []
    for share_S in share_RS:
        share_N = np.bincount(rng.integers(0, images, images), minlength=images) / images
        means.append(float(share_S @ values_SN @ share_N))
    # The variance over S drawn seeds is too small by (S - 1) / S.
    half = float(stdtrit(seeds - 1, 0.975) * np.std(means) * np.sqrt(seeds / (seeds - 1)))
    mean = float(values_SN.mean())
    return Interval(mean, mean - half, mean + half, seeds)
