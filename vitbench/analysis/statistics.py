"""Means over few seeds, and arms compared seed by seed.

A seed fixes initial weights and data order in every arm, so two arms are compared by the
differences d_s = a_s - b_s of the same seed: what the seeds have in common cancels, and
Var(d) = Var(a) + Var(b) - 2 r sd(a) sd(b) with the measured correlation r. P(A > B) follows
Bouthillier et al. 2021 (arXiv:2103.03098).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

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
    mean = float(x.mean())
    if len(x) < MIN_SEEDS:
        return Interval(mean, None, None, len(x))
    half = float(stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half, len(x))


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


def against_best(
    trials: pd.DataFrame, names: list[str], metric: str, choose_by: str = "val_loss"
) -> pd.DataFrame:
    """Every arm against the arm with the lowest mean of `choose_by`, in `metric`.

    Args:
        trials: one row per trial, with a column `seed`.
        names: the settings that make an arm.
        metric: a loss to compare.
        choose_by: what the reference arm is chosen by; arms with a missing value are not chosen.

    Returns:
        One row per arm but the best (PAIRED_COLUMNS): the mean of `metric` less the best arm's.
        `missing` counts seeds of the best arm for which the arm has no finite value; an arm with
        missing seeds carries no claim, since the seeds that failed are its worst.
    """
    arms = {
        label: part.drop_duplicates("seed", keep="last").set_index("seed")
        for label, part in trials.groupby(arm_labels(trials, names), sort=False)
    }
    whole = {n: f[choose_by].mean() for n, f in arms.items() if f[choose_by].notna().all()}
    rows = []
    if whole:
        best = min(whole, key=lambda name: whole[name])
        reference = _by_seed(arms[best][metric])
        for label, frame in arms.items():
            if label == best:
                continue
            values = _by_seed(frame[metric])
            row: dict[str, Any] = {"pairs": 0, "claim": "none"}
            if set(values) & set(reference):
                row = paired(values, reference).row
            missing = sum(1 for seed in reference if seed not in values)
            if missing:
                row["claim"] = "none"
            rows.append({"arm": label, "against": best, "missing": missing, **row})
    return pd.DataFrame(rows, columns=list(PAIRED_COLUMNS))


def arm_labels(trials: pd.DataFrame, names: list[str]) -> pd.Series:
    """The arm of each trial in words: `lr 0.003, batch size 16`."""
    parts = [trials[name].map(lambda value, name=name: setting(name, value)) for name in names]
    if not parts:
        return pd.Series("all", index=trials.index)
    label = parts[0].astype(str)
    for part in parts[1:]:
        label = label + ", " + part.astype(str)
    return label


# Settings beside learning rate and seed that make a model another one, in the order of tables.
SHAPE_COLUMNS = ("label", "width", "depth", "heads", "patch_grid", "batch_size", "optimizer")


def varying(trials: pd.DataFrame) -> list[str]:
    """The SHAPE_COLUMNS that have more than one value."""
    return [name for name in SHAPE_COLUMNS if trials[name].nunique(dropna=False) > 1]


def by_settings(
    frame: pd.DataFrame, names: list[str], sort: bool = False
) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """A table in parts, one for each combination of settings: (values, rows).

    Without names it is one part, with no values.
    """
    return list(frame.groupby(names, dropna=False, sort=sort)) if names else [((), frame)]


def in_words(names: list[str], values: Iterable[Any]) -> str:
    """Several settings in words."""
    return ", ".join(setting(name, value) for name, value in zip(names, values, strict=True))


def setting(name: str, value: object) -> str:
    """One setting in words."""
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{name.replace('_', ' ')} {shown}"


def _by_seed(values: pd.Series) -> dict[int, float]:
    """Finite values by seed."""
    kept = values[np.isfinite(values.astype(float))]
    return {int(seed): float(value) for seed, value in kept.items()}  # type: ignore[call-overload]
