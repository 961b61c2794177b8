"""Means of the attention scores over images, with intervals, beside their controls."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vitbench.analysis.statistics import mean_interval

_FACTS = {"trial_id", "label", "method", "test_index", "truth", "predicted", "patches"}


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % t interval of every score over images, by method.

    Lifts also get the paired difference to the strongest control (`margin`): another image's
    region. An interval of it above 0 says that the model looks at this image's region, not at
    where such regions usually are.

    Columns: method, score, images, mean, low, high, margin, margin_low, margin_high.
    """
    found = []
    for method, part in rows.groupby("method", sort=False):
        for score in (name for name in rows.columns if name not in _FACTS):
            values = part[score].dropna().to_numpy(dtype=float)
            if len(values) == 0:
                continue
            row = {"method": method, "score": score, "images": len(values)}
            row |= dict(zip(("mean", "low", "high"), _interval(values), strict=True))
            control = f"{score}_other_image"
            if control in part:
                paired = (part[score] - part[control]).dropna().to_numpy(dtype=float)
                row |= dict(
                    zip(("margin", "margin_low", "margin_high"), _interval(paired), strict=True)
                )
            found.append(row)
    return pd.DataFrame(found)


def _interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and t interval; none from fewer than three images."""
    if not len(values):
        return math.nan, math.nan, math.nan
    mean = mean_interval(values)
    return mean.mean, *mean.ends
