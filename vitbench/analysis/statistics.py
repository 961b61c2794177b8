"""Means over few seeds, and arms compared seed by seed.

A seed fixes initial weights and data order in every arm, so two arms are compared by the
differences d_s = a_s - b_s of the same seed: what the seeds have in common cancels, and
Var(d) = Var(a) + Var(b) - 2 r sd(a) sd(b) with the measured correlation r. P(A > B) follows
Bouthillier et al. 2021 (arXiv:2103.03098).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]

MIN_SEEDS = 3  # below it neither an interval nor a claim
LEVEL = 0.95
_MAX_EXACT = 36  # pairs whose sign flips are all counted, as two halves of 2^18
_RANDOM_FLIPS = 100_000


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
        return (
            math.nan if self.low is None else self.low,
            math.nan if self.high is None else self.high,
        )

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.high is None else self.high - self.mean


@dataclass(frozen=True)
class Paired:
    """Arm A against arm B over the seeds that both have.

    Attributes:
        difference: mean of a - b, with its t interval.
        p: two-sided sign-flip p; None below three pairs. With n pairs it is never below 2 / 2^n.
        correlation: of a and b over seeds; None below three pairs or where an arm is constant.
        a_greater: share of the pairs with a > b, ties counted half.
    """

    difference: Interval
    p: float | None
    correlation: float | None
    a_greater: float

    @property
    def pairs(self) -> int:
        """Seeds that both arms have."""
        return self.difference.n

    @property
    def claim(self) -> str:
        """What may be said: `less`, `greater`, or `none` (of A, against B, at 5 %)."""
        if self.p is None or self.p >= 1 - LEVEL:
            return "none"
        return "greater" if self.difference.mean > 0 else "less"

    @property
    def row(self) -> dict[str, Any]:
        """The comparison as columns of a table (of PAIRED_COLUMNS)."""
        return {
            "pairs": self.pairs,
            "difference": self.difference.mean,
            "low": self.difference.low,
            "high": self.difference.high,
            "p": self.p,
            "correlation": self.correlation,
            "p_greater": self.a_greater,
            "claim": self.claim,
        }


def mean_interval(values: npt.ArrayLike, level: float = LEVEL) -> Interval:
    """Mean and t interval mean +- t(level, n - 1) sd / sqrt(n); missing values are left out.

    Raises:
        ValueError: if no value is finite.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[np.isfinite(x)]
    if not len(x):
        raise ValueError("no finite value to average")
    ((mean,), (half,)) = (column.tolist() for column in mean_intervals(x[:, None], level))
    if math.isnan(half):
        return Interval(mean, None, None, len(x))
    return Interval(mean, mean - half, mean + half, len(x))


def mean_intervals(values_SP: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Mean and half the t interval of each column, S seeds by P; NaN below three seeds."""
    seeds = len(values_SP)
    mean_P = values_SP.mean(axis=0)
    if seeds < MIN_SEEDS:
        return mean_P, np.full_like(mean_P, np.nan)
    t = float(special.stdtrit(seeds - 1, (1 + level) / 2))
    return mean_P, t * values_SP.std(axis=0, ddof=1) / math.sqrt(seeds)


def sign_flip_p(differences: npt.ArrayLike) -> float:
    """Two-sided p of the mean under random signs: the share of sign patterns as extreme.

    All 2^n patterns are counted up to 36 pairs; beyond, 100,000 seeded random ones stand for
    them, the observed one among them, which keeps the test valid.
    """
    d = np.asarray(differences, dtype=np.float64)
    seen = abs(float(d.sum()))
    slack = 1e-9 * float(np.abs(d).sum())  # sums that differ by rounding alone are equal
    if len(d) > _MAX_EXACT:
        signs = np.random.default_rng(0)
        extreme = 1
        for _ in range(100):
            flips = signs.choice((-1.0, 1.0), size=(_RANDOM_FLIPS // 100, len(d)))
            extreme += int((np.abs(flips @ d) >= seen - slack).sum())
        return extreme / (_RANDOM_FLIPS + 1)
    half = len(d) // 2
    left, right = _signed_sums(d[:half]), np.sort(_signed_sums(d[half:]))
    above = len(right) - np.searchsorted(right, seen - slack - left, side="left")
    below = np.searchsorted(right, -seen + slack - left, side="right")
    extreme = int((above + below).sum()) if seen > slack else 2 ** len(d)
    return float(extreme / 2 ** len(d))


def _signed_sums(d: Floats) -> Floats:
    """Sums under all 2^n patterns of signs."""
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Paired:
    """Compare two arms, each a value by seed, over the seeds that both have.

    Raises:
        ValueError: if they share no seed with finite values.
    """
    seeds = [s for s in a if s in b and math.isfinite(a[s]) and math.isfinite(b[s])]
    if not seeds:
        raise ValueError("the arms share no seed")
    x, y = np.array([a[s] for s in seeds]), np.array([b[s] for s in seeds])
    d = x - y
    enough = len(seeds) >= MIN_SEEDS
    varies = enough and bool(np.ptp(x) > 0) and bool(np.ptp(y) > 0)
    return Paired(
        difference=mean_interval(d),
        p=sign_flip_p(d) if enough else None,
        correlation=float(np.corrcoef(x, y)[0, 1]) if varies else None,
        a_greater=float((d > 0).mean() + 0.5 * (d == 0).mean()),
    )


PAIRED_COLUMNS = (
    "arm", "against", "pairs", "missing", "difference", "low", "high", "p", "correlation",
    "p_greater", "claim",
)  # fmt: skip
