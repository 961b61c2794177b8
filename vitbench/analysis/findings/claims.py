"""Claims of the sweep file, judged: supported, refuted, undecided or not tested.

Every claim is a set of elementary comparisons over the same seeds. All comparisons of a family
are tested together (`pairs`), so that at most 5 % of families hold any false verdict. A claim is
supported where all of its comparisons come out its way, and refuted where one comes out the other
way. Associations are tested by permuting units (labels, arms) and share the level of the family
with the comparisons by Bonferroni.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from vitbench.analysis.findings.arms import Arms, by_arm, labels, setting
from vitbench.analysis.findings.pairs import LEVEL, Contrast, Pair, adjusted
from vitbench.analysis.results import Results
from vitbench.config.claims import Arm, Claim

SUPPORTED, REFUTED, UNDECIDED, NOT_TESTED = "supported", "refuted", "undecided", "not tested"
# Below five units the smallest p of a permutation is above 0.05: 2 / 4! = 0.083.
MIN_UNITS = 5
_MAX_EXACT_UNITS = 7
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
        why: what is missing, where the claim was not tested or cannot be decided.
        added_after: whether the claim was not yet there when the first trial started.
    """

    claim: Claim
    verdict: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p_adjusted: float | None = None
    n: int = 0
    why: str = ""
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


def _family(results: Results, claims: Sequence[Claim]) -> list[Verdict]:
    """Judge claims that are corrected together."""
    contrasts: dict[str, list[Contrast]] = {}
    units: dict[str, pd.DataFrame] = {}
    refused: dict[str, str] = {}
    for claim in claims:
        try:
            if claim.relation == "associated":
                units[claim.id] = _units(results, claim)
            else:
                contrasts[claim.id] = _contrasts(results, claim)
        except _NotTestable as reason:
            refused[claim.id] = str(reason)
    shares = len(units) + bool(contrasts)
    flat = [contrast for of_claim in contrasts.values() for contrast in of_claim]
    seeds = {len(contrast.d_S) for contrast in flat}
    pairs = iter(_together(flat, seeds))
    verdicts = []
    for claim in claims:
        if claim.id in refused:
            verdicts.append(Verdict(claim, NOT_TESTED, why=refused[claim.id]))
        elif claim.id in units:
            verdicts.append(_associated(claim, units[claim.id], shares))
        else:
            of_claim = list(itertools.islice(pairs, len(contrasts[claim.id])))
            verdicts.append(_compared(claim, of_claim, shares))
    return verdicts


def _together(contrasts: Sequence[Contrast], seeds: set[int]) -> list[Pair]:
    """Contrasts over the same seeds are flipped together; other ones share the level equally."""
    if len(seeds) <= 1:
        return adjusted(contrasts)
    by_seeds = {n: iter(adjusted([c for c in contrasts if len(c.d_S) == n])) for n in seeds}
    pairs = [next(by_seeds[len(contrast.d_S)]) for contrast in contrasts]
    return [_scaled(pair, len(seeds)) for pair in pairs]


def _scaled(pair: Pair, times: int) -> Pair:
    return Pair(pair.a, pair.b, pair.difference, pair.p, min(1.0, pair.p_adjusted * times))


class _NotTestable(Exception):
    """Why the results cannot judge a claim."""


def _contrasts(results: Results, claim: Claim) -> list[Contrast]:
    """Elementary comparisons of a claim; a positive mean speaks for it, zero is its margin."""
    groups = _groups(results, claim)
    sign = -1.0 if claim.relation in ("lowest", "lower") else 1.0
    if claim.relation == "ordered":
        arms = claim.of if isinstance(claim.of, list) else [claim.of]
        chain = [_group(groups, arm, claim) for arm in arms]
        steps = [(upper, lower) for lower, upper in itertools.pairwise(chain)]
    else:
        arm = claim.of if isinstance(claim.of, dict) else claim.of[0]
        name = _group(groups, arm, claim)
        if claim.than is not None:
            others = [_group(groups, claim.than, claim)]
        else:
            others = [other for other in groups if other != name]
            if not others:
                raise _NotTestable(f"there is no other setting than {name}")
        steps = [(name, other) for other in others]
    return [
        Contrast(a, b, sign * (groups[a] - groups[b]).to_numpy(dtype=np.float64) - claim.margin)
        for a, b in steps
    ]


def _groups(results: Results, claim: Claim) -> dict[str, pd.Series]:
    """The metric by seed of every combination of the settings that the claim names.

    Settings that it leaves open are averaged over, each combination weighing the same.
    """
    keys = _keys(claim)
    arms, settings = _arms(results, claim.metric)
    unknown = [key for key in (*keys, *claim.where) if key not in settings.columns]
    if unknown:
        raise _NotTestable(f"the sweep does not vary {unknown[0]}")
    kept = settings[[_matches(row, claim.where) for _, row in settings.iterrows()]]
    if kept.empty:
        raise _NotTestable(f"no trial has {_words(claim.where)}")
    lacking = [str(arm) for arm in kept.index if arm in arms.incomplete]
    if lacking:
        raise _NotTestable(f"{lacking[0]} lacks {arms.incomplete[lacking[0]]} of its seeds")
    if len(arms.values) < 2:
        raise _NotTestable("one seed: differences between seeds are unknown")
    groups: dict[str, pd.Series] = {}
    for values, part in kept.groupby(keys, sort=False, dropna=False):
        named = dict(zip(keys, values if isinstance(values, tuple) else (values,), strict=True))
        groups[_words(named)] = arms.values[list(part.index)].mean(axis=1)
    return groups


def _keys(claim: Claim) -> list[str]:
    arms = claim.of if isinstance(claim.of, list) else [claim.of]
    return list(dict.fromkeys(key for arm in (*arms, claim.than or {}) for key in arm))


def _group(groups: Mapping[str, pd.Series], arm: Arm, claim: Claim) -> str:
    name = _words(arm)
    if name not in groups:
        raise _NotTestable(f"no trial has {name}")
    return name


def _words(arm: Mapping[str, object]) -> str:
    """`lr 0.003, batch size 16`, with numbers as one type writes them."""
    return ", ".join(setting(name, _plain(value)) for name, value in arm.items())


def _plain(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return value
    return float(value)


def _matches(row: pd.Series, wanted: Arm) -> bool:
    return all(_words({key: row[key]}) == _words({key: value}) for key, value in wanted.items())


def _arms(results: Results, metric: str) -> tuple[Arms, pd.DataFrame]:
    """The metric by arm, and the settings of each arm (a row each, by the arm's name)."""
    if metric not in results.trials:
        raise _NotTestable(f"these results hold no {metric}")
    arms = by_arm(results, metric)
    names = list(arms.names)
    rows = results.trials.assign(arm=labels(results.trials, names))
    return arms, rows.drop_duplicates("arm").set_index("arm")[names]


def _compared(claim: Claim, pairs: Sequence[Pair], shares: int) -> Verdict:
    """Supported if all comparisons come out the claim's way, refuted if one comes out against."""
    p = [min(1.0, pair.p_adjusted * shares) for pair in pairs]
    means = [pair.difference.mean for pair in pairs]
    against = [k for k in range(len(pairs)) if p[k] < LEVEL and means[k] < 0]
    if against:
        verdict, decisive = REFUTED, min(against, key=lambda k: means[k])
    else:
        verdict = SUPPORTED if all(x < LEVEL for x in p) else UNDECIDED
        decisive = max(range(len(pairs)), key=lambda k: (p[k], -means[k]))
    pair = pairs[decisive]
    back = -1.0 if claim.relation in ("lowest", "lower") else 1.0
    ends = [
        None if end is None else back * (end + claim.margin)
        for end in (pair.difference.low, pair.difference.high)
    ]
    low, high = ends if back > 0 else ends[::-1]
    return Verdict(
        claim,
        verdict,
        effect=back * (pair.difference.mean + claim.margin),
        low=low,
        high=high,
        p_adjusted=p[decisive],
        n=pair.difference.n,
        why=f"{pair.a} against {pair.b}",
    )


def _units(results: Results, claim: Claim) -> pd.DataFrame:
    """Means over seeds of both metrics for each value of `over`."""
    if claim.with_metric is None or claim.over is None:
        raise _NotTestable("`associated` needs with_metric and over")
    columns = []
    for metric in (claim.metric, claim.with_metric):
        part = claim.model_copy(update={"metric": metric, "of": {claim.over: None}})
        columns.append(pd.Series({k: v.mean() for k, v in _groups(results, part).items()}))
    table = pd.concat(columns, axis=1, join="inner").dropna()
    if len(table) < MIN_UNITS:
        raise _NotTestable(
            f"{len(table)} values of {claim.over} are the units; an association needs {MIN_UNITS}"
        )
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
    orders: Iterable[Sequence[int]]
    if len(a) <= _MAX_EXACT_UNITS:
        orders = list(itertools.permutations(range(len(a))))
    else:
        rng = np.random.default_rng(0)
        orders = [rng.permutation(len(a)).tolist() for _ in range(_PERMUTATIONS - 1)]
        orders = [list(range(len(a))), *orders]
    sums = np.abs(b[np.array(orders)] @ a)
    return seen / scale, float((sums >= abs(seen) - 1e-9).mean())
