"""Arms compared with each other, all pairs at once, so that the claims hold together.

Seeds are pairs: d_s = a_s - b_s of the same seed. Under equal arms the sign of every seed's
differences is a coin flip, and it is the same flip for all pairs. So all pairs are flipped
together, and each pair's statistic is compared with the largest of all pairs' under the same
flip: the step-down max-T of Westfall and Young (1993). The chance of any false claim among all
pairs is then at most 5 %, whichever arm is taken as the reference afterwards, and the smallest
adjusted p stays 2 / 2^n, so that six seeds can be enough for any number of arms.

The statistic is mean(d) / (rms(d) + s0) with s0 the median of rms(d) over pairs, after Tusher et
al. 2001 (doi:10.1073/pnas.091062498): over few seeds the spread of one pair is mostly noise, and
without s0 the pairs that differ least by chance win.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vitbench.analysis.statistics import Floats, Interval, mean_interval

LEVEL = 0.05
_MAX_EXACT = 13  # seeds whose sign patterns are all counted
_RANDOM_FLIPS = 4096


@dataclass(frozen=True)
class Pair:
    """Two arms over the same seeds.

    Attributes:
        a, b: the arms; the mean of `a` is the higher one.
        difference: mean of a - b with its own 95 % t interval.
        p: exact two-sided sign-flip p of this pair alone.
        p_adjusted: over all pairs of the family.
    """

    a: str
    b: str
    difference: Interval
    p: float
    p_adjusted: float

    @property
    def told_apart(self) -> bool:
        """Whether it may be claimed that `a` is higher than `b`."""
        return self.p_adjusted < LEVEL


@dataclass(frozen=True)
class Contrast:
    """Differences of one comparison, a value per seed; positive speaks for `a` above `b`."""

    a: str
    b: str
    d_S: Floats


def all_pairs(values: pd.DataFrame) -> list[Pair]:
    """Every arm against every other.

    Args:
        values: a row per seed, a column per arm, no gaps.

    Raises:
        ValueError: if a value is missing.
    """
    if values.isna().to_numpy().any():
        raise ValueError("every arm needs a value for every seed")
    order = values.mean().sort_values(ascending=False, kind="stable").index
    contrasts = [
        Contrast(str(a), str(b), (values[a] - values[b]).to_numpy(dtype=np.float64))
        for a, b in itertools.combinations(order, 2)
    ]
    return adjusted(contrasts)


def adjusted(contrasts: Sequence[Contrast]) -> list[Pair]:
    """Test contrasts over the same seeds together; in the order in which they came."""
    if not contrasts:
        return []
    d_SP = np.stack([contrast.d_S for contrast in contrasts], axis=1)
    alone_P, together_P = sign_flip(d_SP)
    return [
        Pair(c.a, c.b, mean_interval(c.d_S), float(alone), float(together))
        for c, alone, together in zip(contrasts, alone_P, together_P, strict=True)
    ]


def sign_flip(d_SP: Floats) -> tuple[Floats, Floats]:
    """Two-sided p of the mean of each column under joint sign flips of the rows.

    Args:
        d_SP: differences, S seeds by P comparisons.

    Returns:
        p of each comparison alone, and adjusted over all of them; both shape [P].
    """
    scale_P = np.sqrt((d_SP**2).mean(axis=0))
    scale_P = scale_P + np.median(scale_P)
    still_P = scale_P == 0.0  # all differences are zero
    scaled_SP = d_SP / np.where(still_P, 1.0, scale_P)
    flipped_FP = np.abs(_flips(len(d_SP)) @ scaled_SP)  # row 0 is what was observed
    slack = 1e-9 * (1.0 + flipped_FP[0])  # sums that differ by rounding alone are equal
    seen_P = flipped_FP[0] - slack
    alone_P = (flipped_FP >= seen_P).mean(axis=0)
    order = np.argsort(-flipped_FP[0], kind="stable")
    # The largest over this comparison and all weaker ones, under each flip.
    largest_FP = np.maximum.accumulate(flipped_FP[:, order[::-1]], axis=1)[:, ::-1]
    steps_P = np.maximum.accumulate((largest_FP >= seen_P[order]).mean(axis=0))
    together_P = np.empty_like(steps_P)
    together_P[order] = steps_P
    return alone_P, together_P


def _flips(seeds: int) -> Floats:
    """Patterns of signs, the observed one first; half of all, since both tails count alike."""
    if seeds <= _MAX_EXACT:
        rest = itertools.product((1.0, -1.0), repeat=seeds - 1)
        return np.array([(1.0, *signs) for signs in rest])
    drawn = np.random.default_rng(0).choice((1.0, -1.0), size=(_RANDOM_FLIPS, seeds))
    drawn[0] = 1.0
    return np.asarray(drawn, dtype=np.float64)


def smallest_p(seeds: int) -> float:
    """The smallest p that so many seeds can give, adjusted or not."""
    return min(1.0, 2.0 / 2.0**seeds)


# The fewest seeds whose smallest p is below the level.
MIN_SEEDS_TO_CLAIM = math.floor(math.log2(2.0 / LEVEL)) + 1
