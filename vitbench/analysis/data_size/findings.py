"""Findings on the number of training images: curves, laws, images needed, and who leads where.

Every contrast is of logarithms of test errors over the same seeds, so an effect is a factor. All of
them are one family: neighbouring sizes of a curve, its own best rates against one rate for all
sizes, and two models at each size that both have.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np

from vitbench.analysis.data_size import power_law
from vitbench.analysis.data_size.curves import Curve, curves_of
from vitbench.analysis.data_size.power_law import MAX_FACTOR, MIN_SIZES, Fitted, Refusal
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import Contrast, Pair, adjusted
from vitbench.analysis.results import Results, computed_once
from vitbench.analysis.statistics import MIN_SEEDS, Floats, mean_interval
from vitbench.words import decimal

FAMILY = "data_size"
METRIC = "test_error"


@computed_once
def fits_of(results: Results) -> dict[str, Fitted | Refusal]:
    """The law of each curve by its name, or why there is none."""
    fits: dict[str, Fitted | Refusal] = {}
    for curve in curves_of(results):
        kept = curve.learned_N
        sizes = tuple(curve.sizes[k] for k in kept)
        reason = power_law.why_not(sizes, curve.log_error()[:, kept])
        error_SN = curve.error_SN[:, kept]
        fits[curve.name] = reason or Fitted.of(sizes, error_SN, curve.half_image)
    return fits


def findings(results: Results) -> list[Finding]:
    """What the curves say; nothing where the number of images does not vary."""
    curves = curves_of(results)
    steps, rates, duels = _tested(curves)
    told = []
    for number, curve in enumerate(curves):
        told.append(_curve(curve))
        told += _steps(curve, steps[number])
        told += _rates(curve, rates[number])
        told += _law(curve, fits_of(results)[curve.name], results.target)
    return told + [_duel(duel) for duel in duels]


def limits(results: Results) -> list[Finding]:
    """What curves over numbers of images cannot tell."""
    curves = curves_of(results)
    if not curves:
        return []
    trials = results.trials
    steps = set(trials["steps"].dropna()) if "steps" in trials else set()
    lengths = {"steps": int(steps.pop()) if len(steps) == 1 else None}
    told = [Finding("limit_size_length", facts=lengths)]
    if any(isinstance(fitted, Fitted) for fitted in fits_of(results).values()):
        told.append(Finding("limit_size_law"))
    return told


@dataclass(frozen=True)
class Duel:
    """Two models compared at each size that both have; `pairs` by size."""

    a: Curve
    b: Curve
    pairs: dict[int, Pair]

    def leads(self, curve: Curve) -> list[int]:
        """Sizes at which it may be claimed that this one of the two has the lower error."""
        return [n for n, pair in self.pairs.items() if pair.told_apart and pair.b == curve.name]


def _tested(
    curves: Sequence[Curve],
) -> tuple[list[list[Pair]], list[list[Pair]], list[Duel]]:
    """All contrasts, tested together: neighbouring sizes and rates of each curve, and duels."""
    contrasts: list[Contrast] = []

    def add(a: str, b: str, d_S: Floats, seeds: tuple[int, ...]) -> None:
        """Add a contrast, of the two the one with the higher mean first."""
        up = d_S.mean() >= 0
        contrasts.append(Contrast(*((a, b) if up else (b, a)), d_S if up else -d_S, seeds))

    counts_of_steps, counts_of_rates = [], []
    for curve in curves:
        several = len(curve.seeds) > 1
        log_SN = curve.log_error()
        for k in range(len(curve.sizes) - 1) if several else ():
            small, large = (f"{n:,}" for n in curve.sizes[k : k + 2])
            add(small, large, log_SN[:, k] - log_SN[:, k + 1], curve.seeds)
        counts_of_steps.append(len(curve.sizes) - 1 if several else 0)
        tuned = several and len(set(curve.best_N)) > 1
        if tuned:
            lost_SN = curve.log_error(curve.fixed_error_SN) - log_SN
            add("one rate", "own rates", lost_SN.mean(axis=1), curve.seeds)
        counts_of_rates.append(int(tuned))
    met = []
    for a, b in itertools.combinations(curves, 2):
        if a.label != b.label or a.seeds != b.seeds or len(a.seeds) < 2:
            continue
        shared = [n for n in a.sizes if n in b.sizes]
        for n in shared:
            log_a, log_b = (c.log_error()[:, c.sizes.index(n)] for c in (a, b))
            add(a.name, b.name, log_a - log_b, a.seeds)
        met.append((a, b, shared))
    pairs = iter(adjusted(contrasts))
    steps, rates = [], []
    for of_steps, of_rates in zip(counts_of_steps, counts_of_rates, strict=True):
        steps.append(list(itertools.islice(pairs, of_steps)))
        rates.append(list(itertools.islice(pairs, of_rates)))
    duels = [Duel(a, b, {n: next(pairs) for n in shared}) for a, b, shared in met]
    return steps, rates, duels


def _curve(curve: Curve) -> Finding:
    """The error at the smallest and at the largest size, each at its own best rate."""
    first, last = (mean_interval(curve.error_SN[:, k]) for k in (0, -1))
    facts = {"sizes": curve.sizes, "first": first, "rates": len(curve.rates)}
    facts |= {"left_out": curve.left_out, "drawn": curve.drawn}
    return Finding(
        "size_curve", arms=(curve.name,), metric=METRIC, effect=last.mean, low=last.low,
        high=last.high, n=last.n, facts=facts,
    )  # fmt: skip


def _steps(curve: Curve, pairs: Sequence[Pair]) -> list[Finding]:
    """From which sizes to the next the error falls (or rises), and by how much the last one."""
    if not pairs:
        return []
    seeds = len(curve.seeds)
    ways: dict[str, list[list[int]]] = {"falls": [], "rises": [], "unclear": []}
    for pair, (small, large) in zip(pairs, itertools.pairwise(curve.sizes), strict=True):
        way = ("falls" if pair.a == f"{small:,}" else "rises") if pair.told_apart else "unclear"
        if ways[way] and ways[way][-1][-1] == small:
            ways[way][-1].append(large)
        else:
            ways[way].append([small, large])
    last = pairs[-1]
    sign = -1.0 if last.a == f"{curve.sizes[-2]:,}" else 1.0
    ends = sorted(sign * end for end in last.difference.ends)
    facts = {
        **{way: [_span(run) for run in runs] for way, runs in ways.items()},
        "from": curve.sizes[-2], "to": curve.sizes[-1],
    }  # fmt: skip
    known = last.difference.low is not None
    return [
        Finding(
            kind="size_steps",
            family=FAMILY,
            asserts=bool(ways["falls"] or ways["rises"]),
            arms=(curve.name,),
            metric=METRIC,
            effect=math.expm1(sign * last.difference.mean),
            low=math.expm1(ends[0]) if known else None,
            high=math.expm1(ends[1]) if known else None,
            p=max((pair.p for pair in pairs if pair.told_apart), default=None),
            p_adjusted=max((pair.p_adjusted for pair in pairs if pair.told_apart), default=None),
            n=seeds,
            facts=facts,
        )
    ]


def _rates(curve: Curve, pairs: Sequence[Pair]) -> list[Finding]:
    """The best rate of each size, and what one rate for all sizes costs."""
    if len(curve.rates) < 2:
        return []
    best = list(zip(curve.sizes, curve.best_N, strict=True))
    runs = [(curve.rates[k], [n for n, _ in run]) for k, run in groupby(best, key=itemgetter(1))]
    ends = (0, len(curve.rates) - 1) if len(curve.rates) > 2 else ()
    facts = {
        "best": [f"{decimal(rate)} at {_span(sizes)}" for rate, sizes in runs],
        "fixed": curve.rates[curve.fixed],
        "same": len(runs) == 1,
        "edges": [f"{n:,}" for n, k in best if k in ends],
        "rates": len(curve.rates),
    }
    told = Finding("size_rates", FAMILY, arms=(curve.name,), metric=METRIC, n=len(curve.seeds),
                   facts=facts)  # fmt: skip
    if not pairs:
        return [told]
    (pair,) = pairs
    sign = 1.0 if pair.a == "one rate" else -1.0
    low, high = sorted(sign * end for end in pair.difference.ends)
    known = pair.difference.low is not None
    return [
        Finding(
            kind="size_rates",
            family=FAMILY,
            asserts=pair.told_apart,
            arms=(curve.name,),
            metric=METRIC,
            effect=math.expm1(sign * pair.difference.mean),
            low=math.expm1(low) if known else None,
            high=math.expm1(high) if known else None,
            p=pair.p,
            p_adjusted=pair.p_adjusted,
            n=len(curve.seeds),
            facts=facts,
        )
    ]


def _span(sizes: Sequence[int]) -> str:
    return f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"


def _law(curve: Curve, fitted: Fitted | Refusal, target: float | None) -> list[Finding]:
    """The law, its prediction of the largest size, images needed and what twice as many bring."""
    if isinstance(fitted, Refusal):
        facts = {"refusal": fitted, "sizes_needed": MIN_SIZES, "seeds_needed": MIN_SEEDS}
        return [Finding("size_no_law", arms=(curve.name,), metric=METRIC, facts=facts)]
    seeds, most = len(curve.seeds), curve.sizes[-1]
    skipped = [n for n in curve.sizes if n not in fitted.sizes]
    law = Finding(
        "size_law", arms=(curve.name,), metric=METRIC, effect=fitted.miss,
        low=fitted.miss_ends[0], high=fitted.miss_ends[1], n=seeds,
        facts={"fit": fitted, "skipped": skipped},
    )  # fmt: skip
    now_B, twice_B = fitted.laws.error([most, 2 * most]).T
    gain_B, reliance_B = 1.0 - twice_B / now_B, fitted.laws.reliance(most)
    low, high = power_law.interval(gain_B)
    doubling = Finding(
        "size_doubling", arms=(curve.name,), metric=METRIC, effect=float(gain_B[0]), low=low,
        high=high, n=seeds,
        facts={"most": most, "now": float(now_B[0]), "twice": float(twice_B[0]),
               "reliance": float(reliance_B[0]), "reliance_ends": power_law.interval(reliance_B)},
    )  # fmt: skip
    return [law, *_needed(curve, fitted, target), doubling]


def _needed(curve: Curve, fitted: Fitted, target: float | None) -> list[Finding]:
    """Images needed for the stated accuracy."""
    if target is None:
        return []
    needed_B = power_law.needed(fitted.sizes, fitted.error_BN, fitted.laws, 1.0 - target)
    low, high = power_law.interval(needed_B)
    limit = MAX_FACTOR * curve.sizes[-1]
    count = float(needed_B[0])
    facts = {
        "target": target,
        "smallest": fitted.sizes[0],
        "most": curve.sizes[-1],
        "limit": int(limit),
        "factor": int(MAX_FACTOR),
        "low": low if low <= limit else None,
        "high": high if high <= limit else None,
        "count": count if count <= limit else None,
        "by_law": count > curve.sizes[-1],
    }
    return [
        Finding(
            "size_needed", arms=(curve.name,), metric="train_images",
            effect=count if 0 < count <= limit else None,
            low=low if 0 < low <= limit else None, high=high if 0 < high <= limit else None,
            n=len(curve.seeds), facts=facts,
        )
    ]  # fmt: skip


def _duel(duel: Duel) -> Finding:
    """Which of two models has the lower error at which sizes, and where they cross."""
    a, b = duel.a, duel.b
    for first, second in ((a, b), (b, a)):  # the one that leads on few images first
        here, there = duel.leads(first), duel.leads(second)
        if here and there and max(here) < min(there):
            return _crossing(duel, first, second, here, there)
    told = [pair for pair in duel.pairs.values() if pair.told_apart]
    leads = {c.name: [f"{n:,}" for n in duel.leads(c)] for c in (a, b) if duel.leads(c)}
    unclear = [f"{n:,}" for n, pair in duel.pairs.items() if not pair.told_apart]
    seeds = len(a.seeds)
    return Finding(
        kind="size_lead",
        family=FAMILY,
        asserts=bool(told),
        arms=(a.name, b.name),
        metric=METRIC,
        p_adjusted=max((pair.p_adjusted for pair in told), default=None),
        n=seeds,
        facts={"leads": leads, "unclear": unclear, "cross": _means_cross(a, b, list(duel.pairs))},
    )


def _means_cross(a: Curve, b: Curve, sizes: list[int]) -> dict[str, object] | None:
    """Where the mean errors of two models cross, to be described; None where they do not."""
    for first, second in ((a, b), (b, a)):
        means = [
            [float(curve.error_SN[:, curve.sizes.index(n)].mean()) for n in (sizes[0], sizes[-1])]
            for curve in (first, second)
        ]
        if means[0][0] < means[1][0] and means[0][1] > means[1][1]:
            cross_B = _crossings(first, second, sizes)
            low, high = power_law.interval(cross_B)
            ends = {"smallest": sizes[0], "largest": sizes[-1]}
            return {"first": first.name, "at": float(cross_B[0]), "low": low, "high": high, **ends}
    return None


def _crossings(first: Curve, second: Curve, sizes: list[int]) -> Floats:
    """Where the errors cross, of the model that leads on few images and the other: `crossing`."""
    sampled = [
        power_law.resampled(
            curve.error_SN[:, [curve.sizes.index(n) for n in sizes]], floor=curve.half_image
        )
        for curve in (first, second)
    ]
    return crossing(sizes, np.log(sampled[0]) - np.log(sampled[1]))


def _crossing(
    duel: Duel, first: Curve, second: Curve, here: list[int], there: list[int]
) -> Finding:
    """The one that leads on few images, the one that leads on many, and where they cross."""
    cross_B = _crossings(first, second, [n for n in duel.pairs if here[0] <= n <= there[-1]])
    low, high = power_law.interval(cross_B)
    told = [duel.pairs[n] for n in (*here, *there)]
    return Finding(
        kind="size_crossing",
        family=FAMILY,
        asserts=True,
        arms=(first.name, second.name),
        metric="train_images",
        effect=float(cross_B[0]),
        low=low,
        high=high,
        p_adjusted=max(pair.p_adjusted for pair in told),
        n=len(first.seeds),
        facts={"here": here[-1], "there": there[0]},
    )


def crossing(sizes: Sequence[int], lead_BN: Floats) -> Floats:
    """Where a difference that begins below zero ends above it, by lines in log n: [B].

    Of several places the middle, in the logarithm, between the first and the last. A sample that
    never crosses has the end at which it would.
    """
    log_n_N = np.log(np.asarray(sizes, dtype=np.float64))
    found_B = np.empty(len(lead_BN))
    for row, lead_N in enumerate(lead_BN):
        up = np.flatnonzero((lead_N[:-1] < 0) & (lead_N[1:] >= 0))
        if not len(up):
            found_B[row] = log_n_N[0] if lead_N[0] >= 0 else log_n_N[-1]
            continue
        share = lead_N[up] / (lead_N[up] - lead_N[up + 1])
        places = log_n_N[up] + share * (log_n_N[up + 1] - log_n_N[up])
        found_B[row] = (places[0] + places[-1]) / 2
    return np.exp(found_B)
