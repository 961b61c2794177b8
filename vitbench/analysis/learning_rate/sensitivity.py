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

import numpy as np
import pandas as pd

from vitbench.analysis.findings.arms import ENDED, by_settings, standing_in
from vitbench.analysis.statistics import Floats, chosen_by_others, mean_interval
from vitbench.words import decimal

MIN_RATES = 5  # three rates over two decades rank the rates, and neither S nor a window follows
DELTA_NATS = 0.1
NEEDED = ("seed", "lr", "status", "val_loss", "initial_val_loss")  # columns of trials
LEARNED = 0.05  # a run that closed less of the gap from l0 to l* has learned nothing


@dataclass(frozen=True)
class Sensitivity:
    """One model's dependence on the learning rate; losses are means over seeds, in nats.

    `best_loss_unseen` is free of the optimism of taking a minimum: each seed is scored at the
    rate that the other seeds choose (NaN below two seeds). From `edge_lr` on, some seed diverges
    or learns nothing at every rate; it is NaN where the highest rate is sound.
    """

    rates: int  # rates and seeds behind every number
    seeds: int
    low_lr: float  # the range [a, b]
    high_lr: float
    best_lr: float = math.nan
    best_loss: float = math.nan
    best_loss_unseen: float = math.nan
    agree: int = 0  # seeds whose own best rate is `best_lr`
    boundary: str = ""  # `low` or `high` if the best rate is an end of the range
    s_grid: float = math.nan
    s_trapz: float = math.nan
    s_trapz_low: float = math.nan  # t interval over seeds
    s_trapz_high: float = math.nan
    delta: float = DELTA_NATS
    safe_low: float = math.nan  # between these the loss stays within `delta` of the best,
    safe_high: float = math.nan  # interpolated in ln lr
    safe_decades: float = math.nan  # log10(safe_high / safe_low)
    safe_open: str = ""  # sides that reach the end of the range: `low`, `high` or `both`
    edge_lr: float = math.nan
    last_good_lr: float = math.nan  # the rate below `edge_lr`
    failed_alone: str = ""  # other rates at which some seed diverged or learned nothing
    diverged: int = 0  # runs
    left_out: int = 0  # trials without an end, and seeds that lack a rate: not in any number
    initial: float = math.nan  # loss before training
    # Why there is no S: `no_whole_seed`, `few_rates` or `nothing_learned`; empty where there is.
    why_not: str = ""


def losses_by_seed(trials: pd.DataFrame) -> pd.DataFrame:
    """Capped losses of one model: a row per seed, a column per learning rate, gaps as NaN."""
    loss_N = standing_in(trials, "val_loss").to_numpy()
    known_N = ~np.isnan(loss_N)
    seed_N, seeds = pd.factorize(trials["seed"][known_N], sort=True)
    lr_N, lrs = pd.factorize(trials["lr"][known_N], sort=True)
    place_N, places = seed_N * len(lrs) + lr_N, len(seeds) * len(lrs)
    count = np.bincount(place_N, minlength=places)
    total = np.bincount(place_N, loss_N[known_N], minlength=places)
    means = np.divide(total, count, out=np.full(places, math.nan), where=count > 0)
    return pd.DataFrame(means.reshape(len(seeds), len(lrs)), index=seeds, columns=lrs)


def curve(trials: pd.DataFrame, losses: pd.DataFrame | None = None) -> pd.DataFrame:
    """Loss by learning rate of one model; `losses` are those by seed, if known.

    Columns: `lr`, `loss` (mean over seeds), `low`, `high` (t interval, NaN below three seeds),
    `seeds`, `diverged`, `initial` (l0).
    """
    table, rows = losses_by_seed(trials) if losses is None else losses, []
    gone = trials[trials["status"] == "diverged"].groupby("lr").size()
    start = float(trials["initial_val_loss"].astype(float).mean())
    for lr in sorted(table.columns):
        mean = mean_interval(table[lr].to_numpy())
        rows.append((lr, mean.mean, *mean.ends, mean.n, int(gone.get(lr, 0)), start))
    return pd.DataFrame(rows, columns=["lr", "loss", "low", "high", "seeds", "diverged", "initial"])


def _log_mean(lrs: Floats, losses: Floats) -> float:
    """The mean over the range, by the trapezoid in ln lr."""
    x = np.log(lrs)
    return float(np.trapezoid(losses, x) / (x[-1] - x[0]))


def measure(
    trials: pd.DataFrame, delta: float = DELTA_NATS, losses: pd.DataFrame | None = None
) -> Sensitivity:
    """Sensitivity of one model, from its trials at several learning rates and seeds.

    `losses` are those by seed, if known.
    The interval of S is over seeds, each with the excess over its own loss at the common best
    rate; the mean of these is exactly S of the mean curve.
    """
    table = losses_by_seed(trials) if losses is None else losses
    whole = table.dropna()
    lrs = np.array(sorted(table.columns), dtype=np.float64)
    result = Sensitivity(
        rates=len(lrs),
        seeds=len(whole),
        low_lr=float(lrs[0]) if len(lrs) else math.nan,
        high_lr=float(lrs[-1]) if len(lrs) else math.nan,
        delta=delta,
        diverged=int((trials["status"] == "diverged").sum()),
        left_out=int((~trials["status"].isin(ENDED)).sum()) + len(table) - len(whole),
        why_not="no_whole_seed",
    )
    if not len(whole):
        return result
    values = whole[lrs].to_numpy(dtype=np.float64)
    mean = values.mean(axis=0)
    best, last = int(mean.argmin()), len(lrs) - 1
    start = float(trials["initial_val_loss"].astype(float).mean())
    result = replace(
        result,
        best_lr=float(lrs[best]),
        best_loss=float(mean[best]),
        best_loss_unseen=float(np.mean(chosen_by_others(values))) if len(values) > 1 else math.nan,
        agree=int((values.argmin(axis=1) == best).sum()),
        boundary="" if 0 < best < last else ("low" if best == 0 else "high"),
        initial=start,
        why_not="few_rates",
    )
    if len(lrs) < MIN_RATES:
        return result
    if mean[best] > (1 - LEARNED) * start:
        return replace(result, why_not="nothing_learned")
    s_low, s_high = mean_interval([_log_mean(lrs, row) - row[best] for row in values]).ends
    failed = (values >= mean[best] + (1 - LEARNED) * (start - mean[best])).any(axis=0)
    edge = len(lrs)
    while edge > best + 1 and failed[edge - 1]:
        edge -= 1
    low, high, open_sides = _window(lrs, mean, best, delta)
    return replace(
        result,
        why_not="",
        s_grid=float(mean.mean() - mean.min()),
        s_trapz=_log_mean(lrs, mean) - float(mean.min()),
        s_trapz_low=s_low,
        s_trapz_high=s_high,
        safe_low=low,
        safe_high=high,
        safe_decades=math.log10(high / low),
        safe_open=open_sides,
        edge_lr=float(lrs[edge]) if edge <= last else math.nan,
        last_good_lr=float(lrs[edge - 1]) if edge <= last else math.nan,
        failed_alone=", ".join(map(decimal, lrs[:edge][failed[:edge]])),
    )


def _window(lrs: Floats, mean: Floats, best: int, delta: float) -> tuple[float, float, str]:
    """Ends of the stretch around the best rate in which the mean is within delta of the best."""
    x, limit = np.log(lrs), mean[best] + delta
    ends, open_sides = [], []
    for side, step, last in (("low", -1, 0), ("high", 1, len(lrs) - 1)):
        k = best
        while k != last and mean[k + step] <= limit:
            k += step
        if k == last:
            ends.append(float(lrs[k]))
            open_sides.append(side)
        else:
            share = (limit - mean[k]) / (mean[k + step] - mean[k])
            ends.append(float(np.exp(x[k] + share * (x[k + step] - x[k]))))
    return ends[0], ends[1], "both" if len(open_sides) == 2 else "".join(open_sides)


def table(trials: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """One row per combination of the settings `names`, with the fields of Sensitivity."""
    cells = by_settings(trials[[*names, *NEEDED]], names, sort=True)
    return pd.DataFrame(
        [dict(zip(names, cell, strict=True)) | asdict(measure(part)) for cell, part in cells]
    )
