"""Since which epoch the best learning rates have been in the order in which they end."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    of them leads may be chance. Empty below six seeds, which tell nothing apart.
    """

    best: tuple[float, ...]
    best_since: int
    since: int
    last: int
    seeds: int
    level: tuple[float, ...] = ()


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

    def since(places: int) -> int:
        other = [e for e, order in orders.items() if order[:places] != orders[last][:places]]
        return min(epoch for epoch in orders if epoch > max(other, default=0))

    best, seeds = tuple(map(float, orders[last])), ended["seed"].nunique()
    level = _level(loss_TE[last], ended, best[0]) if seeds >= MIN_SEEDS_TO_CLAIM else ()
    return Settled(best, since(1), since(_TOP), last, seeds, level)


def _level(loss_T: pd.Series, trials: pd.DataFrame, lowest: float) -> tuple[float, ...]:
    """Rates that are not told apart from the one of lowest mean loss, which is not among them."""
    loss_SR = loss_T.groupby([trials["seed"], trials["lr"]]).mean().unstack()
    pairs = all_pairs(loss_SR.rename(columns=str))
    higher = {pair.a for pair in pairs if pair.b == str(lowest) and pair.told_apart}
    return tuple(
        float(lr) for lr in loss_SR.columns.tolist() if str(lr) not in {*higher, str(lowest)}
    )
