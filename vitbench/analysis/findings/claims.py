"""Claims of the sweep file, judged: supported, refuted, undecided or not tested.

Every claim is a set of elementary comparisons over the same seeds. All comparisons of a family
are tested together (`pairs`), so that at most 5 % of families hold any false verdict. A claim is
supported where all of its comparisons come out its way, and refuted where one comes out the other
way. Against a number (at_least, at_most) the differences are those of each seed from it. With a
margin the differences less the margin are flipped: supported means by at least so
much, refuted means by less. Associations are tested by permuting units (labels, arms) and share
the level of the family with the comparisons by Bonferroni.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitbench.analysis.findings.arms import COLUMNS, by_arm, by_settings, setting
from vitbench.analysis.findings.measures import Untested, UntestedError, by_trial
from vitbench.analysis.findings.pairs import LEVEL, MIN_UNITS, sign_flip
from vitbench.analysis.results import Results
from vitbench.analysis.statistics import Floats, choice_of_others, mean_interval
from vitbench.config import owner_of, setting_of
from vitbench.config.claims import Arm, Claim

SUPPORTED, REFUTED, UNDECIDED, NOT_TESTED = "supported", "refuted", "undecided", "not tested"
VERDICTS = (SUPPORTED, REFUTED, UNDECIDED, NOT_TESTED)
_MAX_EXACT_UNITS = 7
_DOWN = ("lowest", "lower", "at_most")
_PERMUTATIONS = 20_000


@dataclass(frozen=True)
class Verdict:
    """What the results say of one claim.

    Attributes:
        claim: as the sweep file states it.
        verdict: SUPPORTED, REFUTED, UNDECIDED or NOT_TESTED.
        effect: of the comparison that decided (the weakest of a supported claim, the strongest
            against a refuted one); a rank correlation for an association.
        low, high: its 95 % interval.
        p_adjusted: over the family.
        n: seeds, or units of an association.
        compared: the two arms (or an arm and a number) whose comparison decided.
        untested: why, where the claim was not tested.
        added_after: whether the claim was not yet there when the first trial started.
    """

    claim: Claim
    verdict: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p_adjusted: float | None = None
    n: int = 0
    compared: tuple[str, ...] = ()
    untested: Untested | None = None
    added_after: bool = False


def judge(results: Results) -> list[Verdict]:
    """A verdict per claim of the sweep file, in its order."""
    claims = [Claim.model_validate(claim) for claim in results.sweep.get("claims") or ()]
    before = set(results.environment.get("claims") or ())
    told: dict[str, Verdict] = {}
    for family in dict.fromkeys(claim.family for claim in claims):
        for verdict in _family(results, [claim for claim in claims if claim.family == family]):
            told[verdict.claim.id] = verdict
    return [
        replace(told[claim.id], added_after=claim.fingerprint not in before) for claim in claims
    ]


@dataclass(frozen=True)
class _Comparison:
    """One arm against another: a difference per seed, positive where it speaks for the claim."""

    a: str
    b: str
    d_S: Floats


def _family(results: Results, claims: Sequence[Claim]) -> list[Verdict]:
    """Judge claims that are corrected together."""
    compared: dict[str, list[_Comparison]] = {}
    units: dict[str, pd.DataFrame] = {}
    refused: dict[str, Untested] = {}
    for claim in claims:
        try:
            if claim.relation == "associated":
                units[claim.id] = _units(results, claim)
            else:
                compared[claim.id] = _comparisons(results, claim)
        except UntestedError as error:
            refused[claim.id] = error.reason
    shares = len(units) + bool(compared)
    adjusted = _adjusted(
        [(claim.metric, c.d_S) for claim in claims for c in compared.get(claim.id, ())]
    )
    verdicts = []
    for claim in claims:
        if claim.id in refused:
            verdicts.append(Verdict(claim, NOT_TESTED, untested=refused[claim.id]))
        elif claim.id in units:
            verdicts.append(_associated(claim, units[claim.id], shares))
        else:
            p = [min(1.0, next(adjusted) * shares) for _ in compared[claim.id]]
            verdicts.append(_compared(claim, compared[claim.id], p))
    return verdicts


def _adjusted(differences: Sequence[tuple[str, Floats]]) -> Iterator[float]:
    """Adjusted p of comparisons, by metric and differences per seed, in their order.

    Every metric is first divided by its typical size (the median over its comparisons of the root
    mean square), because accuracies and losses have no unit in common. Flips leave that size as it
    is, so the test stays exact.
    """
    if not differences:
        return iter(())
    sizes: dict[str, list[float]] = {}
    for metric, d_S in differences:
        sizes.setdefault(metric, []).append(float(np.sqrt((d_S**2).mean())))
    unit = {metric: float(np.median(size)) or 1.0 for metric, size in sizes.items()}
    d_SP = np.stack([d_S / unit[metric] for metric, d_S in differences], axis=1)
    return iter(sign_flip(d_SP)[1].tolist())


def _comparisons(results: Results, claim: Claim) -> list[_Comparison]:
    """Elementary comparisons of a claim; a positive mean speaks for it, zero is its margin."""
    against_all = claim.relation in ("highest", "lowest")
    groups = _groups(results, claim, claim.metric, [] if against_all else claim.arms)
    sign = -1.0 if claim.relation in _DOWN else 1.0
    names = [_name(arm) for arm in claim.arms]
    for name in names:
        if name not in groups:
            raise UntestedError(Untested("no_trial", (name,)))
    if claim.value is not None:
        d_S = groups[names[0]].to_numpy(dtype=np.float64) - claim.value
        return [_Comparison(names[0], f"{claim.value:g}", sign * d_S)]
    if claim.relation == "ordered":
        steps = [(upper, lower) for lower, upper in itertools.pairwise(names)]
    elif against_all:
        steps = [(names[0], other) for other in groups if other != names[0]]
        if not steps:
            raise UntestedError(Untested("no_other_arm", (names[0],)))
    else:
        steps = [(names[0], names[1])]
    return [
        _Comparison(a, b, sign * (groups[a] - groups[b]).to_numpy(dtype=np.float64) - claim.margin)
        for a, b in steps
    ]


def _groups(
    results: Results, claim: Claim, metric: str, wanted: Sequence[Arm]
) -> dict[str, pd.Series]:
    """The metric by seed of every combination of the settings that the claim names.

    Settings that it leaves open are averaged over, each combination weighing the same; between
    models, each over what the sweep file gives to it alone. Of a tuned setting each seed has the
    value that the other seeds choose.

    Args:
        results: of a sweep.
        claim: which settings, and where.
        metric: what to average.
        wanted: combinations to look at; all if empty.
    """
    arms = by_arm(results, metric, by_trial(results, metric))
    settings = arms.settings
    names = (
        [claim.over] if claim.over else list(dict.fromkeys(k for arm in claim.arms for k in arm))
    )
    for name in (*names, *claim.where):
        if COLUMNS.get(name, name) not in settings.columns:
            raise UntestedError(Untested("not_varied", (name,)))
    parts: dict[str, list[str]] = {}
    open_settings: dict[str, set[str]] = {}
    columns = [COLUMNS.get(name, name) for name in names]
    compared = [*columns, *(_owned(results) if "model" in names else ())]
    sought = {_name(arm) for arm in wanted}
    for arm, row in settings.iterrows():
        here = _name({name: row[COLUMNS.get(name, name)] for name in names})
        holds = {name: row[COLUMNS.get(name, name)] for name in claim.where}
        if _name(holds) == _name(claim.where) and (not sought or here in sought):
            parts.setdefault(here, []).append(str(arm))
            others = _name({name: row[name] for name in settings.columns if name not in compared})
            open_settings.setdefault(here, set()).add(others)
    if not parts:
        raise UntestedError(Untested("no_trial", (_name(claim.where),)))
    for arm in itertools.chain.from_iterable(parts.values()):
        if arm in arms.incomplete:
            raise UntestedError(Untested("seeds_missing", (arm,), arms.incomplete[arm]))
    first, *rest = open_settings
    for name in rest:
        if differ := open_settings[name] ^ open_settings[first]:
            raise UntestedError(Untested("unlike_settings", (first, name, min(differ))))
    if claim.tuned is None:
        return {name: arms.values[part].mean(axis=1) for name, part in parts.items()}
    val = by_arm(results, "val_loss").values
    kept = settings.drop(columns=[claim.tuned])
    return {name: _tuned(arms.values, val, kept.loc[part]) for name, part in parts.items()}


def _tuned(values: pd.DataFrame, val: pd.DataFrame, others: pd.DataFrame) -> pd.Series:
    """The metric by seed where one setting is chosen by the other seeds, the rest averaged over.

    Args:
        values: the metric, a row per seed, a column per arm.
        val: the validation loss of the same.
        others: the settings that are not chosen, a row per arm.
    """
    columns = []
    for _, part in by_settings(others, list(others.columns)):
        arms = list(part.index)
        place_S = choice_of_others(val[arms].to_numpy(dtype=np.float64))
        columns.append(values[arms].to_numpy(dtype=np.float64)[np.arange(len(values)), place_S])
    return pd.Series(np.mean(columns, axis=0), index=values.index)


def _owned(results: Results) -> set[str]:
    """Settings whose values a sweep file gives for one model alone (`cnn.lr`)."""
    space = results.sweep["search"]["space"]
    return {COLUMNS.get(n, n) for n in (setting_of(axis) for axis in space if owner_of(axis))}


def _name(arm: Mapping[str, object]) -> str:
    """An arm in words, `batch size 16, lr 0.003`: names in order, 16 and 16.0 written alike."""
    return ", ".join(setting(name, _plain(arm[name])) for name in sorted(arm))


def _plain(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return value
    return float(value)


def _compared(claim: Claim, comparisons: Sequence[_Comparison], p: Sequence[float]) -> Verdict:
    """Supported if all comparisons come out the claim's way, refuted if one comes out against."""
    means = [float(c.d_S.mean()) for c in comparisons]
    against = [k for k in range(len(p)) if p[k] < LEVEL and means[k] < 0]
    if against:
        verdict, decisive = REFUTED, min(against, key=lambda k: means[k])
    else:
        verdict = SUPPORTED if all(x < LEVEL for x in p) else UNDECIDED
        decisive = max(range(len(p)), key=lambda k: (p[k], -means[k]))
    one = comparisons[decisive]
    back = -1.0 if claim.relation in _DOWN else 1.0
    interval = mean_interval(back * (one.d_S + claim.margin))
    return Verdict(
        claim,
        verdict,
        effect=interval.mean,
        low=interval.low,
        high=interval.high,
        p_adjusted=p[decisive],
        n=interval.n,
        compared=(one.a, one.b),
    )


def _units(results: Results, claim: Claim) -> pd.DataFrame:
    """Means over seeds of both metrics for each value of `over`."""
    if claim.with_metric is None or claim.over is None:
        raise ValueError("`associated` needs with_metric and over")
    table = pd.DataFrame(
        {
            metric: {name: v.mean() for name, v in _groups(results, claim, metric, []).items()}
            for metric in (claim.metric, claim.with_metric)
        }
    )
    if len(table) < MIN_UNITS:
        raise UntestedError(Untested("few_values", (claim.over,), len(table)))
    return table


def _associated(claim: Claim, table: pd.DataFrame, shares: int) -> Verdict:
    x, y = (table[column].to_numpy(dtype=np.float64) for column in table)
    rho, p = permutation_rho(x, y)
    p = min(1.0, p * shares)
    decided = SUPPORTED if rho > 0 else REFUTED
    verdict = decided if p < LEVEL else UNDECIDED
    return Verdict(claim, verdict, effect=rho, p_adjusted=p, n=len(table))


def permutation_rho(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Spearman's rho of units, and its two-sided p by permuting them.

    All permutations are counted up to seven units; beyond, 20,000 seeded random ones stand for
    them, the observed one among them.
    """
    a, b = (pd.Series(values).rank().to_numpy() for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a**2).sum() * (b**2).sum()))
    if scale == 0.0:
        return 0.0, 1.0
    seen = float(a @ b)
    sums = np.abs(b[_orders(len(a))] @ a)
    return seen / scale, float((sums >= abs(seen) - 1e-9).mean())


@functools.cache
def _orders(units: int) -> npt.NDArray[np.intp]:
    """Orders of so many units, the given one among them: all, or random ones of many units."""
    if units <= _MAX_EXACT_UNITS:
        return np.array(list(itertools.permutations(range(units))))
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(units) for _ in range(_PERMUTATIONS - 1)]
    return np.stack([np.arange(units), *drawn])
