"""Means over few seeds with their t intervals."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MIN_SEEDS = 3  # below it neither an interval nor a claim
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with its t interval; `low` and `high` are None below three values."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def ends(self) -> tuple[float, float]:
        """`low` and `high`, as NaN below three values."""
        if self.low is None or self.high is None:
            return math.nan, math.nan
        return self.low, self.high

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.high is None else self.high - self.mean


def mean_interval(values: npt.ArrayLike) -> Interval:
    """Mean and 95 % t interval, mean +- t(0.95, n - 1) sd / sqrt(n); missing values are left out.

    Raises:
        ValueError: if no value is finite.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[np.isfinite(x)]
    if not len(x):
        raise ValueError("no finite value to average")
    ((mean,), (half,)) = (column.tolist() for column in mean_intervals(x[:, None]))
    if math.isnan(half):
        return Interval(mean, None, None, len(x))
    return Interval(mean, mean - half, mean + half, len(x))


def mean_intervals(values_SP: Floats) -> tuple[Floats, Floats]:
    """Mean and half the t interval of each column, S seeds by P; NaN below three seeds."""
    seeds = len(values_SP)
    mean_P = values_SP.mean(axis=0)
    if seeds < MIN_SEEDS:
        return mean_P, np.full_like(mean_P, np.nan)
    return mean_P, _t_quantile(seeds - 1) * values_SP.std(axis=0, ddof=1) / math.sqrt(seeds)


@functools.cache
def _t_quantile(freedom: int) -> float:
    from scipy import special  # a quarter of a second, which a dry run need not wait

    return float(special.stdtrit(freedom, (1 + LEVEL) / 2))


def choice_of_others(values_SA: Floats) -> npt.NDArray[np.intp]:
    """For each seed the arm of lowest mean over the other seeds, [S]; of one seed its own."""
    if len(values_SA) == 1:
        return np.asarray(values_SA.argmin(axis=1), dtype=np.intp)
    others = [np.delete(values_SA, seed, axis=0).mean(axis=0) for seed in range(len(values_SA))]
    return np.asarray(np.stack(others).argmin(axis=1), dtype=np.intp)


def chosen_by_others(values_SA: Floats) -> list[float]:
    """Each seed's value in the arm of lowest mean over the other seeds: free of choosing's luck."""
    chosen_S = choice_of_others(values_SA)
    return [float(row[arm]) for row, arm in zip(values_SA, chosen_S, strict=True)]


def kendall_tau(x: Floats, y: Floats) -> float:
    """Kendall's tau-b of N pairs of values; NaN where all of one side are tied.

    The sum of sign(x_i - x_j) sign(y_i - y_j) over pairs, over the root of the product of the
    numbers of pairs that are not tied in x and in y. scipy's takes most of a second to import.
    """
    sign_x, sign_y = (np.sign(values[:, None] - values[None, :]) for values in (x, y))
    untied = math.sqrt(float(np.abs(sign_x).sum() * np.abs(sign_y).sum()))
    return float((sign_x * sign_y).sum()) / untied if untied else math.nan
