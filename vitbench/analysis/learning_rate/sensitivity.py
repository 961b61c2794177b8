"""How much the loss depends on the learning rate, and where training is safe.

    S = mean over the range [a, b] of (min(l(lr), l0) - l*),  l* = min over the range of l(lr)

after Wortsman et al. 2023 (arXiv:2309.14322). l is the mean validation loss over seeds at the end
of training and l0 the validation loss before training, which also stands in for runs that
diverged. `s_grid` is the plain mean over the learning rates tried, comparable with that paper
only on the same grid; `s_trapz` is the integral by the trapezoid in ln lr over ln(b / a), which
hardly depends on the grid. S means nothing without its range, so both always travel with [a, b].
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from vitbench.analysis.findings.arms import by_settings, shape_names, standing_in
from vitbench.analysis.results import Results, computed_once
from vitbench.analysis.statistics import Floats, mean_interval

MIN_RATES = 5  # three rates over two decades rank the rates, and neither S nor a window follows
DELTA_NATS = 0.1
_LEARNED = 0.05  # a run that closed less of the gap from l0 to l* has learned nothing
_ENDED = ("finished", "diverged")


@dataclass(frozen=True)
class Sensitivity:
    """One model's dependence on the learning rate.

    Attributes:
        rates, seeds: learning rates and seeds behind every number.
        low_lr, high_lr: the range [a, b].
        best_lr, best_loss: where the mean over seeds is lowest, and that mean.
        best_loss_unseen: the same with the rate chosen without the seed that scores it (NaN below
            two seeds); it is free of the optimism of taking a minimum.
        agree: seeds whose own best rate is `best_lr`.
        boundary: `low` or `high` if the best rate is an end of the range, else empty.
        s_grid, s_trapz, s_trapz_low, s_trapz_high: S in nats, with its t interval over seeds.
        delta: width of the safe window in loss, nats.
        safe_low, safe_high: rates between which the mean loss stays within `delta` of the best,
            interpolated in ln lr; a side that reaches the end of the range is open.
        safe_decades: log10(safe_high / safe_low).
        safe_open: `low`, `high`, `both` or empty.
        edge_lr: lowest rate above the best one from which on some seed diverges or learns nothing
            at every rate; NaN where the highest rate is sound.
        last_good_lr: the rate below `edge_lr`.
        failed_alone: other rates at which some seed diverged or learned nothing, in words.
        diverged: runs that diverged.
        left_out: trials without an end, and seeds that lack a rate; nothing is computed from them.
        why_not: why there is no S; empty where there is one.
    """

    rates: int
    seeds: int
    low_lr: float
    high_lr: float
    best_lr: float = math.nan
    best_loss: float = math.nan
    best_loss_unseen: float = math.nan
    agree: int = 0
    boundary: str = ""
    s_grid: float = math.nan
    s_trapz: float = math.nan
    s_trapz_low: float = math.nan
    s_trapz_high: float = math.nan
    delta: float = DELTA_NATS
    safe_low: float = math.nan
    safe_high: float = math.nan
    safe_decades: float = math.nan
    safe_open: str = ""
    edge_lr: float = math.nan
    last_good_lr: float = math.nan
    failed_alone: str = ""
    diverged: int = 0
    left_out: int = 0
    why_not: str = ""


def losses_by_seed(trials: pd.DataFrame) -> pd.DataFrame:
    """Capped losses of one model: a row per seed, a column per learning rate, gaps as NaN."""
    table = trials.assign(loss=standing_in(trials, "val_loss")).pivot_table(
        index="seed", columns="lr", values="loss", aggfunc="mean", dropna=False
    )
    return table.astype(float).dropna(how="all", axis="columns").dropna(how="all")


def curve(trials: pd.DataFrame) -> pd.DataFrame:
    """Loss by learning rate of one model.

    Columns: `lr`, `loss` (mean over seeds), `low`, `high` (t interval, NaN below three seeds),
    `seeds`, `diverged`, `initial` (l0).
    """
    table = losses_by_seed(trials)
    gone = trials[trials["status"] == "diverged"].groupby("lr").size()
    rows = []
    for lr in sorted(table.columns):
        mean = mean_interval(table[lr].to_numpy())
        rows.append(
            {
                "lr": lr,
                "loss": mean.mean,
                "low": mean.ends[0],
                "high": mean.ends[1],
                "seeds": mean.n,
                "diverged": int(gone.get(lr, 0)),
                "initial": float(trials["initial_val_loss"].astype(float).mean()),
            }
        )
    return pd.DataFrame(rows, columns=["lr", "loss", "low", "high", "seeds", "diverged", "initial"])


def s_grid(losses: Floats) -> float:
    """Mean excess over the best of losses that are capped at l0."""
    return float(losses.mean() - losses.min())


def s_trapz(lrs: Floats, losses: Floats) -> float:
    """Mean excess over the best by the trapezoid in ln lr, of losses that are capped at l0."""
    return _log_mean(lrs, losses) - float(losses.min())


def _log_mean(lrs: Floats, losses: Floats) -> float:
    x = np.log(lrs)
    return float(np.trapezoid(losses, x) / (x[-1] - x[0]))


def measure(trials: pd.DataFrame, delta: float = DELTA_NATS) -> Sensitivity:
    """Sensitivity of one model, from its trials at several learning rates and seeds.

    The interval of S is over seeds, each with the excess over its own loss at the common best
    rate; the mean of these is exactly S of the mean curve.
    """
    table = losses_by_seed(trials)
    whole = table.dropna()
    lrs = np.array(sorted(table.columns), dtype=np.float64)
    counts: dict[str, Any] = {
        "rates": len(lrs),
        "seeds": len(whole),
        "diverged": int((trials["status"] == "diverged").sum()),
        "left_out": int((~trials["status"].isin(_ENDED)).sum()) + len(table) - len(whole),
    }
    ends = (float(lrs[0]), float(lrs[-1])) if len(lrs) else (math.nan, math.nan)
    if not len(whole):
        why = "no seed has an end at every learning rate"
        return Sensitivity(**counts, low_lr=ends[0], high_lr=ends[1], delta=delta, why_not=why)
    values = whole[lrs].to_numpy(dtype=np.float64)
    mean = values.mean(axis=0)
    best = int(mean.argmin())
    base = Sensitivity(
        **counts,
        low_lr=ends[0],
        high_lr=ends[1],
        best_lr=float(lrs[best]),
        best_loss=float(mean[best]),
        best_loss_unseen=_unseen(values),
        agree=int((values.argmin(axis=1) == best).sum()),
        boundary="" if 0 < best < len(lrs) - 1 else ("low" if best == 0 else "high"),
        delta=delta,
        why_not=f"{len(lrs)} learning rates rank the rates but give no S and no safe window; "
        f"at least {MIN_RATES} are needed",
    )
    if len(lrs) < MIN_RATES:
        return base
    start = float(trials["initial_val_loss"].astype(float).mean())
    if mean[best] > (1 - _LEARNED) * start:
        why = (
            f"nothing was learned: the lowest mean loss, {mean[best]:.3g}, is within "
            f"{_LEARNED:.0%} of the loss before training, {start:.3g}"
        )
        return replace(base, why_not=why)
    per_seed = np.array([_log_mean(lrs, row) - row[best] for row in values])
    s_low, s_high = mean_interval(per_seed).ends
    failed = (values >= mean[best] + (1 - _LEARNED) * (start - mean[best])).any(axis=0)
    edge = len(lrs)
    while edge > best + 1 and failed[edge - 1]:
        edge -= 1
    alone = [f"{lrs[k]:g}" for k in range(edge) if failed[k]]
    low, high, open_sides = _window(lrs, mean, best, delta)
    return Sensitivity(
        **{
            **asdict(base),
            "why_not": "",
            "s_grid": s_grid(mean),
            "s_trapz": s_trapz(lrs, mean),
            "s_trapz_low": s_low,
            "s_trapz_high": s_high,
            "safe_low": low,
            "safe_high": high,
            "safe_decades": math.log10(high / low),
            "safe_open": open_sides,
            "edge_lr": float(lrs[edge]) if edge < len(lrs) else math.nan,
            "last_good_lr": float(lrs[edge - 1]) if edge < len(lrs) else math.nan,
            "failed_alone": ", ".join(alone),
        }
    )


def _unseen(values: Floats) -> float:
    """Mean loss of each seed at the rate that the other seeds choose."""
    if len(values) < 2:
        return math.nan
    scores = [
        row[np.delete(values, number, axis=0).mean(axis=0).argmin()]
        for number, row in enumerate(values)
    ]
    return float(np.mean(scores))


def _window(lrs: Floats, mean: Floats, best: int, delta: float) -> tuple[float, float, str]:
    """Ends of the stretch around the best rate in which the mean is within delta of the best."""
    limit = mean[best] + delta
    sides = []
    for step, last in ((-1, 0), (1, len(lrs) - 1)):
        k = best
        while k != last and mean[k + step] <= limit:
            k += step
        if k == last:
            sides.append((float(lrs[k]), True))
            continue
        share = (limit - mean[k]) / (mean[k + step] - mean[k])
        x = np.log(lrs[k]) + share * (np.log(lrs[k + step]) - np.log(lrs[k]))
        sides.append((float(np.exp(x)), False))
    (low, low_open), (high, high_open) = sides
    words = {(True, True): "both", (True, False): "low", (False, True): "high"}
    return low, high, words.get((low_open, high_open), "")


def table(trials: pd.DataFrame, names: list[str], delta: float = DELTA_NATS) -> pd.DataFrame:
    """One row per combination of the settings `names`, with the fields of Sensitivity."""
    return pd.DataFrame(
        [
            {**dict(zip(names, cell, strict=True)), **asdict(measure(part, delta))}
            for cell, part in by_settings(trials, names, sort=True)
        ]
    )


@computed_once
def by_model(results: Results) -> pd.DataFrame:
    """The table of a results folder, a row per model that varies."""
    return table(results.trials, shape_names(results))
