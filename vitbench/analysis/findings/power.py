"""Which difference a planned sweep can detect, and how many seeds its claims need."""

from __future__ import annotations

import numpy as np

from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import LEVEL, MIN_SEEDS_TO_CLAIM, MIN_UNITS, sign_flip
from vitbench.analysis.statistics import Floats
from vitbench.config import Range, Sweep

POWER = 0.8
_SWEEPS = 20_000
_HALVINGS = 14
# Made by `detectable_sd` with its defaults: seeds to detectable difference.
DETECTABLE_SD: dict[int, float] = {
    6: 1.79, 7: 1.33, 8: 1.19, 9: 1.09, 10: 1.00, 11: 0.94, 12: 0.89, 13: 0.85,
    14: 0.82, 15: 0.78, 16: 0.75, 17: 0.72
}  # fmt: skip


def detectable_sd(seeds: int, sweeps: int = _SWEEPS) -> float:
    """The mean difference that a two-sided sign-flip test finds with 80 % power.

    Differences of seeds are normal with standard deviation 1. The same seeded draws are shifted
    by bisection until 80 % of the tests give p < 0.05.

    Args:
        seeds: pairs; at least MIN_SEEDS_TO_CLAIM.
        sweeps: simulated.

    Returns:
        The difference in standard deviations of the paired difference.

    Raises:
        ValueError: if so few seeds can never give p < 0.05.
    """
    if seeds < MIN_SEEDS_TO_CLAIM:
        raise ValueError(f"{seeds} seeds cannot give p < {LEVEL}")
    noise_NS = np.random.default_rng(seeds).normal(size=(sweeps, seeds))
    low, high = 0.0, 4.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _power(noise_NS + middle) < POWER:
            low = middle
        else:
            high = middle
    return high


def _power(d_NS: Floats) -> float:
    """Share of rows whose sign-flip p is below the level, in parts that fit into memory."""
    parts = max(1, d_NS.size * 2 ** min(d_NS.shape[1], 12) // 10**8)
    p = [sign_flip(part_NS.T)[0] for part_NS in np.array_split(d_NS, parts)]
    return float((np.concatenate(p) < LEVEL).mean())


def forecast(sweep: Sweep) -> list[Finding]:
    """What the planned seeds can tell about the claims; nothing without claims."""
    told = []
    compared = sum(claim.relation != "associated" for claim in sweep.claims)
    if compared:
        facts = {"sd": DETECTABLE_SD, "power": POWER, "claims": compared}
        told.append(Finding("seeds_detect", n=seeds_of(sweep), facts=facts))
    for claim in sweep.claims:
        axis = _axis(sweep, claim.over or "")
        if claim.relation == "associated" and axis is not None and len(axis) < MIN_UNITS:
            facts = {"id": claim.id, "over": claim.over, "needed": MIN_UNITS}
            told.append(Finding("too_few_values", n=len(axis), facts=facts))
    return told


def seeds_of(sweep: Sweep) -> int:
    """Seeds that every arm of a sweep is trained with."""
    axis = _axis(sweep, "seed")
    return 1 if axis is None else len(axis)


def _axis(sweep: Sweep, name: str) -> list[object] | None:
    """Values of a setting that varies over a list; None otherwise."""
    axis = sweep.search.space.get(name, sweep.search.inner.get(name))
    return None if axis is None or isinstance(axis, Range) else list(axis)
