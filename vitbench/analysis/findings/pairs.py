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

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.statistics import Floats, Interval, mean_intervals

LEVEL = 0.05
_MAX_EXACT = 13  # seeds whose sign patterns are all counted
_RANDOM_FLIPS = 4096
_MAX_CELLS = 4_000_000  # of flips by comparisons, at a time: 32 MB


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

    def assertion(
        self,
        kind: str,
        family: str,
        metric: str,
        *,
        arms: tuple[str, ...] = (),
        facts: Mapping[str, object] | None = None,
    ) -> Finding:
        """The finding that `a` is higher than `b` in a metric.

        Args:
            kind, family, metric, facts: see `Finding`.
            arms: what it is about; `a` and `b` if left out.
        """
        return Finding(
            kind=kind,
            family=family,
            asserts=True,
            arms=arms or (self.a, self.b),
            metric=metric,
            effect=self.difference.mean,
            low=self.difference.low,
            high=self.difference.high,
            p=self.p,
            p_adjusted=self.p_adjusted,
            n=self.difference.n,
            facts=facts or {},
        )


@dataclass(frozen=True)
class Contrast:
    """Differences of one comparison, a value per seed; positive speaks for `a` above `b`.

    `seeds` says which seeds they are, where comparisons of other seeds are tested beside it.
    """

    a: str
    b: str
    d_S: Floats
    seeds: tuple[int, ...] = ()


def all_pairs(values: pd.DataFrame) -> list[Pair]:
    """Every arm against every other.

    Args:
        values: a row per seed, a column per arm, no gaps.

    Raises:
        ValueError: if a value is missing.
    """
    return adjusted(contrasts(values))


def contrasts(values: pd.DataFrame) -> list[Contrast]:
    """A contrast for every two arms, the one with the higher mean first.

    Args:
        values: a row per seed, a column per arm, no gaps.

    Raises:
        ValueError: if a value is missing.
    """
    table_SA = values.to_numpy(dtype=np.float64)
    if np.isnan(table_SA).any():
        raise ValueError("every arm needs a value for every seed")
    names = [str(name) for name in values.columns]
    order = np.argsort(-table_SA.mean(axis=0), kind="stable")
    return [
        Contrast(names[a], names[b], table_SA[:, a] - table_SA[:, b])
        for a, b in itertools.combinations(order.tolist(), 2)
    ]


def adjusted(contrasts: Sequence[Contrast]) -> list[Pair]:
    """Test contrasts together; in the order in which they came.

    Those over the same seeds are flipped together; groups of other seeds share the level equally.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, contrast in enumerate(contrasts):
        groups.setdefault(contrast.seeds or (len(contrast.d_S),), []).append(place)
    tested: dict[int, Pair] = {}
    for places in groups.values():
        d_SP = np.stack([contrasts[place].d_S for place in places], axis=1)
        alone_P, together_P = sign_flip(d_SP)
        means_P, halves_P = mean_intervals(d_SP)
        columns = (alone_P, np.minimum(1.0, together_P * len(groups)), means_P, halves_P)
        for place, alone, together, mean, half in zip(
            places, *(column.tolist() for column in columns), strict=True
        ):
            c, known = contrasts[place], not math.isnan(half)
            low, high = (mean - half, mean + half) if known else (None, None)
            tested[place] = Pair(c.a, c.b, Interval(mean, low, high, len(d_SP)), alone, together)
    return [tested[place] for place in range(len(contrasts))]


def sign_flip(d_SP: Floats) -> tuple[Floats, Floats]:
    """Two-sided p of the mean of each column under joint sign flips of the rows.

    Args:
        d_SP: differences, S seeds by P comparisons.

    Returns:
        p of each comparison alone, and adjusted over all of them; both shape [P].
    """
    scale_P = np.sqrt((d_SP**2).mean(axis=0))
    scale_P = scale_P + np.median(scale_P)
    scaled_SP = d_SP / np.where(scale_P == 0.0, 1.0, scale_P)  # 0 where nothing differs
    seen_P = np.abs(scaled_SP.sum(axis=0))
    order = np.argsort(-seen_P, kind="stable")
    scaled_SP, seen_P = scaled_SP[:, order], seen_P[order]
    seen_P = seen_P - 1e-9 * (1.0 + seen_P)  # sums that differ by rounding alone are equal
    flips_FS = _flips(len(d_SP))
    alone_P, together_P = np.zeros(len(order)), np.zeros(len(order))
    block = max(1, _MAX_CELLS // len(order))
    for start in range(0, len(flips_FS), block):
        flipped_FP = np.abs(flips_FS[start : start + block] @ scaled_SP)
        alone_P += (flipped_FP >= seen_P).sum(axis=0)
        # The largest over this comparison and all weaker ones, under each flip.
        largest_FP = np.maximum.accumulate(flipped_FP[:, ::-1], axis=1)[:, ::-1]
        together_P += (largest_FP >= seen_P).sum(axis=0)
    back = np.argsort(order, kind="stable")
    together_P = np.maximum.accumulate(together_P)
    return alone_P[back] / len(flips_FS), together_P[back] / len(flips_FS)


@functools.cache
def _flips(seeds: int) -> Floats:
    """Patterns of signs, the observed one first; of a pattern and its opposite one, [F, S]."""
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
# The fewest units of an association: with four the smallest p of a permutation is 2 / 4! = 0.083.
MIN_UNITS = 5
