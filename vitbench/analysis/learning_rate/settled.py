"""Since which epoch the best learning rates have been in the order in which they end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from vitbench.analysis.findings.arms import ENDED
from vitbench.analysis.findings.pairs import MIN_SEEDS_TO_CLAIM, all_pairs

_TOP = 3
_MIN_EPOCHS = 3  # fewer evaluations show no course


@dataclass(frozen=True)
class Settled:
    """The rates of lowest mean validation loss, lowest first, and how long they stand so.

    From epoch `best_since` on the first of them is the lowest at every evaluation, from `since` on
    the order of all is that of the `last` one; equal to `last` where it was not so at the
    evaluation before. `seeds` have an end at every rate, and means are over these. `level` are the
    other rates that the last evaluation does not tell apart from the first, over all pairs: which
    of them leads may be chance.

    From epoch `told_since` on no evaluation tells two rates apart the other way round than the last
    does: what order there is has come to its end. From `level_since` on none tells any two of the
    first and the level ones apart. Below six seeds, which tell nothing apart, both are None.
    """

    best: tuple[float, ...]
    best_since: int
    since: int
    last: int
    seeds: int
    level: tuple[float, ...] = ()
    told_since: int | None = None
    level_since: int | None = None


def settled(trials: pd.DataFrame, epochs: pd.DataFrame) -> Settled | None:
    """The order of one model's best rates over training; None where there is too little to order.

    Means are over seeds, at epochs at which every trial was evaluated. As in the sensitivity, seeds
    that lack a rate do not count, and the loss before training stands in for a higher one and for
    trials that have diverged.

    Args:
        trials: of one model, with `trial_id`, `lr`, `seed`, `status` and `initial_val_loss`.
        epochs: with `trial_id`, `epoch` and `val_loss`; of any trials.
    """
    ended = trials[trials["status"].isin(ENDED)]
    rates = ended["lr"].nunique()
    whole = ended.groupby("seed")["lr"].transform("nunique") == rates
    ended = ended[whole].set_index("trial_id")
    if rates < _TOP or ended.empty:
        return None
    own = epochs[epochs["trial_id"].isin(ended.index)]
    loss_TE = own.pivot_table(index="trial_id", columns="epoch", values="val_loss", dropna=False)
    loss_TE = loss_TE.reindex(ended.index)
    gone_T = ended["status"] == "diverged"
    loss_TE[gone_T] = loss_TE[gone_T].fillna(math.inf)
    start_T = ended["initial_val_loss"].astype(float)
    loss_TE = loss_TE.dropna(axis="columns").clip(upper=start_T, axis="index")
    if loss_TE.shape[1] < _MIN_EPOCHS:
        return None
    mean_RE = loss_TE.groupby(ended["lr"]).mean()
    orders = {int(e): tuple(mean_RE[e].nsmallest(_TOP).index) for e in sorted(mean_RE.columns)}
    last = max(orders)

    def after(epochs: Iterable[int]) -> int:
        """The first evaluation behind all of these."""
        behind = max(epochs, default=0)
        return min(epoch for epoch in orders if epoch > behind)

    def since(places: int) -> int:
        return after(e for e, order in orders.items() if order[:places] != orders[last][:places])

    best, seeds = tuple(map(float, orders[last])), ended["seed"].nunique()
    found = Settled(best, since(1), since(_TOP), last, seeds)
    if seeds < MIN_SEEDS_TO_CLAIM:
        return found
    told = {epoch: _told_apart(loss_TE[epoch], ended) for epoch in orders}
    turned = {(lower, higher) for higher, lower in told[last]}
    level = [lr for lr in map(float, mean_RE.index) if (lr, best[0]) not in told[last]]
    return replace(
        found,
        level=tuple(lr for lr in level if lr != best[0]),
        told_since=after(e for e in orders if told[e] & turned),
        level_since=after(e for e in orders if told[e] & set(itertools.permutations(level, 2))),
    )


def _told_apart(loss_T: pd.Series, trials: pd.DataFrame) -> set[tuple[float, float]]:
    """Pairs of rates, the one of higher loss first, that the seeds tell apart over all pairs."""
    loss_SR = loss_T.groupby([trials["seed"], trials["lr"]]).mean().unstack()
    pairs = all_pairs(loss_SR.rename(columns=str))
    return {(float(pair.a), float(pair.b)) for pair in pairs if pair.told_apart}
