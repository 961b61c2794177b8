"""The law err(n) = a n^-b + c: fitted to means over seeds, with what new seeds would change.

Three parameters as in Viering and Loog 2021 (arXiv:2103.10948); b > 0, a >= 0 and c >= 0. The fit
is by least squares of relative errors, (err(n) - y_n) / y_n with y the observed means, because the
spread of an error grows with the error. For a given b the law is linear in a and c, so the best of
these follow in closed form (variable projection, Golub and Pereyra 1973, doi:10.1137/0710036), and
b is searched on a grid that is refined.

Intervals are of a bootstrap over seeds. Means of few resampled seeds vary too little: with S seeds
the percentile interval of a mean is narrower than its t interval by the factor
z sqrt((S - 1) / S) / t. So resampled means are moved away from the observed ones by its inverse, in
the logarithm, before anything is computed from them.

Summary numbers after Hoiem et al. 2021 (arXiv:2010.11029): the error at N images, and its data
reliance 2 b a N^-b, the error's derivative in N^(-1/2), in units of N^(-1/2).

Shape legend: B samples, of which the first is what was observed; S seeds, N sizes, G exponents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from vitbench.analysis.statistics import LEVEL, MIN_SEEDS, Floats, mean_interval

SAMPLES = 1000
MIN_SIZES = 5
MAX_FACTOR = 4.0  # times the largest size: nothing is said of larger ones
_B_LOW, _B_HIGH, _B_STEPS, _ZOOMS = 0.01, 4.0, 81, 3


@dataclass(frozen=True)
class Laws:
    """The law of each sample; a is that of n in units of the largest size fitted."""

    a_B: Floats
    b_B: Floats
    c_B: Floats
    unit: float

    def error(self, images: ArrayLike) -> Floats:
        """The error at some numbers of images: [B, len(images)]."""
        x = np.asarray(images, dtype=np.float64)[None, :] / self.unit
        values: Floats = self.a_B[:, None] * x ** -self.b_B[:, None] + self.c_B[:, None]
        return values

    def images(self, error: float) -> Floats:
        """Images at which the error falls to this, [B]; infinite where it never does."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            n_B = self.unit * (self.a_B / (error - self.c_B)) ** (1.0 / self.b_B)
        return np.where(error > self.c_B, n_B, math.inf)

    def reliance(self, images: float) -> Floats:
        """Data reliance at a number of images, [B]."""
        return 2.0 * self.b_B * (self.error([images])[:, 0] - self.c_B)

    @property
    def a(self) -> float:
        """The first sample's factor of n^-b, n in images."""
        return float(self.a_B[0] * self.unit ** self.b_B[0])


def fit(sizes: ArrayLike, error_BN: Floats) -> Laws:
    """The best law of each row of errors.

    Args:
        sizes: training images, ascending, [N].
        error_BN: errors above 0; the first row also gives the weights of all.
    """
    n_N = np.asarray(sizes, dtype=np.float64)
    log_N, weight_N = np.log(n_N / n_N[-1]), error_BN[0] ** -2.0
    step = math.log(_B_HIGH / _B_LOW) / (_B_STEPS - 1)
    grid_BG = np.log(np.geomspace(_B_LOW, _B_HIGH, _B_STEPS))[None, :]
    for _ in range(_ZOOMS + 1):
        b_BG = np.exp(np.clip(grid_BG, math.log(_B_LOW), math.log(_B_HIGH)))
        a_BG, c_BG, misfit_BG = _linear(np.exp(-b_BG[..., None] * log_N), error_BN, weight_N)
        best_B1 = misfit_BG.argmin(axis=1)[:, None]
        a_B, b_B, c_B = (
            np.take_along_axis(np.broadcast_to(values, misfit_BG.shape), best_B1, axis=1)[:, 0]
            for values in (a_BG, b_BG, c_BG)
        )
        grid_BG = np.log(b_B)[:, None] + np.linspace(-step, step, 21)[None, :]
        step /= 10.0
    return Laws(a_B, b_B, c_B, float(n_N[-1]))


def _linear(x_BGN: Floats, y_BN: Floats, weight_N: Floats) -> tuple[Floats, Floats, Floats]:
    """Weighted least squares of y = a x + c with a >= 0 and c >= 0; a, c and the misfit, [B, G]."""
    weighted_BGN = weight_N * x_BGN
    s_1, s_x, s_xx = weight_N.sum(), weighted_BGN.sum(-1), (weighted_BGN * x_BGN).sum(-1)
    s_y, s_yy = (y_BN @ weight_N)[:, None], (y_BN**2 @ weight_N)[:, None]
    if len(x_BGN) == 1:  # the same exponents for all samples
        s_xy = y_BN @ weighted_BGN[0].T
    else:
        s_xy = np.einsum("bgn,bn->bg", weighted_BGN, y_BN)
    a = (s_1 * s_xy - s_x * s_y) / np.maximum(s_1 * s_xx - s_x**2, 1e-300)
    c = (s_y - a * s_x) / s_1
    a = np.where(c < 0, s_xy / s_xx, a)
    c = np.maximum(np.where(a < 0, s_y / s_1, c), 0.0)
    a = np.maximum(a, 0.0)
    misfit = s_yy - 2 * (a * s_xy + c * s_y) + a**2 * s_xx + 2 * a * c * s_x + c**2 * s_1
    return a, c, misfit


def resampled(error_SN: Floats, samples: int = SAMPLES, *, floor: float = 1e-12) -> Floats:
    """Means over seeds as observed, then of resampled seeds, spread as a t interval: [1 + B, N].

    The same seeds are drawn for every curve of so many seeds, so that curves stay paired.
    """
    seeds = len(error_SN)
    index_BS = np.random.default_rng(0).integers(seeds, size=(samples, seeds))
    mean_N = np.maximum(error_SN.mean(axis=0), floor)
    log_BN = np.log(np.maximum(error_SN[index_BS].mean(axis=1), floor) / mean_N)
    t = float(special.stdtrit(seeds - 1, (1 + LEVEL) / 2))
    widen = t * math.sqrt(seeds / (seeds - 1)) / float(special.ndtri((1 + LEVEL) / 2))
    return np.concatenate([mean_N[None, :], mean_N * np.exp(widen * log_BN)])


def interval(values_B: Floats) -> tuple[float, float]:
    """Ends of the 95 % interval of what was computed from each sample; they may be infinite."""
    low, high = np.quantile(values_B[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return float(low), float(high)


def rise(log_error_SN: Floats) -> tuple[int, int] | None:
    """Places of two sizes of which the larger one has the higher error, beyond what seeds explain.

    The worst such pair; None where the curve falls as far as the seeds can tell. Paired t
    intervals, at 5 % over all pairs together (Bonferroni).
    """
    seeds, sizes = log_error_SN.shape
    smaller, larger = np.triu_indices(sizes, 1)
    d_SP = log_error_SN[:, larger] - log_error_SN[:, smaller]
    t = float(special.stdtrit(seeds - 1, 1 - (1 - LEVEL) / 2 / d_SP.shape[1]))
    low_P = d_SP.mean(axis=0) - t * d_SP.std(axis=0, ddof=1) / math.sqrt(seeds)
    worst = int(low_P.argmax())
    return (int(smaller[worst]), int(larger[worst])) if low_P[worst] > 0 else None


def needed(sizes: ArrayLike, error_BN: Floats, laws: Laws | None, error: float) -> Floats:
    """Images at which the error falls to a target for good, [B].

    Between sizes by the straight line of log error against log n, beyond the largest by the law
    (infinite without one); 0 where the smallest size is enough.
    """
    log_n_N, log_y_BN = np.log(np.asarray(sizes, dtype=np.float64)), np.log(error_BN)
    above_BN = error_BN > error
    count = error_BN.shape[1]
    last_B = np.where(above_BN.any(axis=1), count - 1 - above_BN[:, ::-1].argmax(axis=1), -1)
    left_B = np.clip(last_B, 0, count - 2)
    rows = np.arange(len(error_BN))
    y_0, y_1 = log_y_BN[rows, left_B], log_y_BN[rows, left_B + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        share_B = np.clip((y_0 - math.log(error)) / (y_0 - y_1), 0.0, 1.0)
    n_B = np.exp(log_n_N[left_B] + share_B * (log_n_N[left_B + 1] - log_n_N[left_B]))
    beyond_B = np.full(len(rows), math.inf) if laws is None else laws.images(error)
    n_B = np.where(last_B == count - 1, np.maximum(beyond_B, math.exp(log_n_N[-1])), n_B)
    return np.where(last_B == -1, 0.0, n_B)


@dataclass(frozen=True)
class Fitted:
    """What the seeds say of one curve; each value with its 95 % interval where it has one.

    Attributes:
        sizes: that were fitted.
        laws: of the samples, the observed one first.
        error_BN: the samples.
        a, b, c: the law observed; `b_ends`, `c_ends` their intervals.
        held_out: the largest size, which a second fit did not see.
        foretold: the error that this fit foretells there.
        seen: the error observed there.
        miss: foretold / seen - 1.
    """

    sizes: tuple[int, ...]
    laws: Laws
    error_BN: Floats
    a: float
    b: float
    b_ends: tuple[float, float]
    c: float
    c_ends: tuple[float, float]
    held_out: int
    foretold: float
    foretold_ends: tuple[float, float]
    seen: float
    miss: float
    miss_ends: tuple[float, float]

    @classmethod
    def of(cls, sizes: tuple[int, ...], error_SN: Floats, floor: float) -> Fitted:
        """Fit the law to a curve, and again without its largest size."""
        error_BN = resampled(error_SN, floor=floor)
        laws = fit(sizes, error_BN)
        foretold_B = fit(sizes[:-1], error_BN[:, :-1]).error([sizes[-1]])[:, 0]
        miss_B = foretold_B / error_BN[:, -1] - 1.0
        return cls(
            sizes=sizes,
            laws=laws,
            error_BN=error_BN,
            a=laws.a,
            b=float(laws.b_B[0]),
            b_ends=interval(laws.b_B),
            c=float(laws.c_B[0]),
            c_ends=interval(laws.c_B),
            held_out=sizes[-1],
            foretold=float(foretold_B[0]),
            foretold_ends=interval(foretold_B),
            seen=float(error_BN[0, -1]),
            miss=float(miss_B[0]),
            miss_ends=interval(miss_B),
        )


@dataclass(frozen=True)
class Refusal:
    """Why no law is fitted: `few_sizes`, `few_seeds` (n of them), `rises` or `flat` (sizes)."""

    why: str
    n: int = 0
    smaller: int = 0
    larger: int = 0


def why_not(sizes: tuple[int, ...], log_error_SN: Floats) -> Refusal | None:
    """Why no law is fitted to a curve; None where one is."""
    seeds = len(log_error_SN)
    if len(sizes) < MIN_SIZES:
        return Refusal("few_sizes", n=len(sizes))
    if seeds < MIN_SEEDS:
        return Refusal("few_seeds", n=seeds)
    if (worst := rise(log_error_SN)) is not None:
        return Refusal("rises", smaller=sizes[worst[0]], larger=sizes[worst[1]])
    fall_S = log_error_SN[:, 0] - log_error_SN[:, -1]
    if not (mean_interval(fall_S).low or 0.0) > 0:
        return Refusal("flat", smaller=sizes[0], larger=sizes[-1])
    return None
