"""What a search over settings shows: which settings matter, what more trials would bring."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from vitbench.analysis.findings.arms import standing_in
from vitbench.analysis.results import Results, computed_once
from vitbench.analysis.search import forest
from vitbench.analysis.statistics import Floats, kendall_tau

MIN_FOR_IMPORTANCE = 20
CLIP_QUANTILE = 0.9
TREES = 16
TEST_TREES = 6  # of each forest of the permutation test, whose level holds whatever their number
_MAX_ENTRIES = 300_000  # suggestions of all trees that are grown at once: 50 MB
_ENDED = ("finished", "stopped", "diverged", "budget")
_MIN_RANKED = 5


def settings(results: Results) -> list[str]:
    """Names of the axes of the search space that have a column."""
    return [name for name in results.sweep["search"]["space"] if name in results.trials]


def varying(results: Results, frame: pd.DataFrame) -> list[str]:
    """Those of the settings that have several values in a table."""
    return [name for name in settings(results) if frame[name].nunique(dropna=False) > 1]


def clip_at(losses: pd.Series) -> float:
    """Where an axis or a scale of colours of losses ends: most of them fit."""
    return float(losses.quantile(CLIP_QUANTILE))


@computed_once
def suggestions(results: Results) -> pd.DataFrame:
    """One row per suggestion (stack), in the order in which they were made.

    Columns: `number`, `stack_id`, the settings, `loss` (lowest over the stack's other settings of
    the mean over seeds of the best validation loss, with the loss before training for models that
    diverged at once; of models of one label each, the mean over labels of that), `epochs` (of all
    its models), `status` (`finished` if any model was).
    """
    trials = results.trials[results.trials["status"].isin(_ENDED)]
    inner = [name for name in results.sweep["search"].get("inner", {}) if name != "seed"]
    loss = trials["best_val_loss"].astype(float)
    frame = trials.assign(loss=loss.where(np.isfinite(loss), trials["initial_val_loss"]))
    names = ["stack_id", *settings(results), "loss", "epochs", "status"]
    arms = frame.groupby(["stack_id", *inner], sort=False, dropna=False)["loss"].mean()
    best = arms.groupby(level=["stack_id", *(name for name in inner if name == "label")]).min()
    table = frame[names].drop_duplicates("stack_id").set_index("stack_id", drop=False)
    table["loss"] = best.groupby(level="stack_id").mean()
    table["epochs"] = frame["epochs"].fillna(0).astype(int).groupby(frame["stack_id"]).sum()
    finished = (frame["status"] == "finished").groupby(frame["stack_id"]).any()
    table["status"] = table["status"].mask(finished.reindex(table.index), "finished")
    table = table.dropna(subset=["loss"]).reset_index(drop=True)
    table.insert(0, "number", np.arange(len(table)))
    return table


def best_so_far(table: pd.DataFrame) -> pd.DataFrame:
    """Lowest loss of the suggestions so far against epochs spent on all of them, in their order."""
    spent, best = table["epochs"].cumsum(), table["loss"].cummin()
    curve = table.assign(epochs_spent=spent, best=best)
    return curve[["epochs_spent", "loss", "best", "status"]]


def best_of_k(losses: npt.ArrayLike) -> pd.DataFrame:
    """Expected lowest loss of k suggestions drawn from those that were made, k = 1..n.

    E[V_k] = sum over the sorted values v_i of v_i (P(V >= v_i)^k - P(V > v_i)^k), after Dodge et
    al. 2019 (arXiv:1909.03004), here for a minimum. It describes independent draws; a sampler
    that learns does better than its own curve.
    """
    values = np.sort(np.asarray(losses, dtype=np.float64))
    n = len(values)
    above = np.arange(n, -1, -1) / n  # P(V >= v_i), then P(V > v_n) = 0
    k = np.arange(1, n + 1)
    weights = above[None, :-1] ** k[:, None] - above[None, 1:] ** k[:, None]
    return pd.DataFrame({"k": k, "expected": weights @ values})


def rungs(results: Results) -> list[int]:
    """Epochs at which ASHA compared trials; without it every epoch but the last."""
    search, last = results.sweep["search"], int(results.sweep["train"]["epochs"])
    if search["scheduler"] != "asha":
        return list(range(1, last))
    rungs = (search["grace_epochs"] * search["reduction_factor"] ** k for k in itertools.count())
    return list(itertools.takewhile(lambda rung: rung < last, rungs))


def rung_correlation(results: Results) -> pd.DataFrame:
    """Kendall's tau between the losses at each rung and at the end, of trials that finished.

    Only those that were let through have a final loss, so tau understates the agreement over all
    trials. Columns: `epoch`, `tau` (NaN below five trials), `trials`.
    """
    finished = results.trials[results.trials["status"] == "finished"]
    final = finished.set_index("trial_id")["val_loss"].astype(float).dropna()
    rows = []
    for epoch in rungs(results):
        at = results.epochs[results.epochs["epoch"] == epoch].set_index("trial_id")["val_loss"]
        both = pd.concat([at.astype(float), final], axis=1, join="inner").dropna().to_numpy()
        tau = kendall_tau(*both.T) if len(both) >= _MIN_RANKED else np.nan
        rows.append((epoch, tau, len(both)))
    return pd.DataFrame(rows, columns=["epoch", "tau", "trials"])


@computed_once
def importance_of(results: Results) -> pd.DataFrame:
    """`importance` of the settings of a search; empty below 20 suggestions."""
    return importance(suggestions(results), settings(results))


def importance(
    made: pd.DataFrame,
    names: list[str],
    permutations: int = 50,
    trees: int = TEST_TREES,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of the loss' variance that each setting explains alone, and whether noise does that.

    fANOVA on a random forest (Hutter, Hoos and Leyton-Brown 2014): in each tree, the variance of
    the prediction averaged over all other settings, over the variance of the prediction; what is
    left belongs to settings together. Every different value of a setting weighs the same. Losses
    above their 90 % quantile are clipped there, so that a few that diverged do not decide it.

    A forest fits noise as well. So each setting is tested by how much worse the forest predicts
    losses that its trees were not fitted to when the setting is shuffled (Breiman 2001), against
    the same of forests fitted to losses permuted over the suggestions (Altmann et al. 2010,
    doi:10.1093/bioinformatics/btq134). p is the share of these tables, the observed one included,
    in which the rise is at least as large. For `p_adjusted` each setting's rises are
    standardised over the tables and compared with the largest of all settings (max-T, Westfall
    and Young 1993). Exact where no setting matters and settings were drawn independently of the
    losses (random search), approximate for a sampler that learns.

    Suggestions (`made`) that were stopped early are left out; p is never below
    1 / (permutations + 1). Columns `setting`, `share`, `p`, `p_adjusted`, `r2` (of the forest's
    out-of-bag predictions), `trials`; the largest share first; empty below 20 suggestions or
    where all losses are equal.
    """
    columns = ["setting", "share", "p", "p_adjusted", "r2", "trials"]
    names, levels_ND, loss_N = _regressed(made, names)
    if not names:
        return pd.DataFrame(columns=columns)
    rng = np.random.default_rng(seed)
    count = len(loss_N)
    grown = forest.grow(levels_ND, np.tile(loss_N, (TREES, 1)), _draws(rng, TREES, count), rng)
    share_D = forest.shares(grown).mean(axis=0)
    r2 = forest.out_of_bag_r2(grown, levels_ND, loss_N)
    tables = [loss_N, *(rng.permutation(loss_N) for _ in range(permutations))]
    rises = []
    at_once = max(1, _MAX_ENTRIES // (trees * count))
    for start in range(0, len(tables), at_once):
        loss_TN = np.repeat(tables[start : start + at_once], trees, axis=0)
        fitted = forest.grow(levels_ND, loss_TN, _draws(rng, len(loss_TN), count), rng)
        rise_TD = forest.rises(fitted, levels_ND, loss_TN, rng)
        rises.append(rise_TD.reshape(-1, trees, len(names)).mean(axis=1))
    rise_PD = np.concatenate(rises)
    p_D = (rise_PD >= rise_PD[0]).mean(axis=0)
    spread_D = rise_PD.std(axis=0)
    scaled_PD = (rise_PD - rise_PD.mean(axis=0)) / np.where(spread_D > 0, spread_D, 1.0)
    adjusted_D = (scaled_PD.max(axis=1)[:, None] >= scaled_PD[0] - 1e-12).mean(axis=0)
    table = pd.DataFrame({"setting": names, "share": share_D, "p": p_D, "p_adjusted": adjusted_D})
    table = table.assign(r2=r2, trials=len(loss_N))
    return table.sort_values("share", ascending=False, kind="stable", ignore_index=True)


def share_intervals(made: pd.DataFrame, names: list[str], *, repeats: int = 20) -> pd.DataFrame:
    """How far the shares of `importance` move over bootstrap samples of the suggestions.

    Columns `setting`, `low`, `high`: 5 % and 95 % quantiles; empty where `importance` is.
    """
    names, levels_ND, loss_N = _regressed(made, names)
    if not names:
        return pd.DataFrame(columns=["setting", "low", "high"])
    rng = np.random.default_rng(0)
    count = len(loss_N)
    share_RD = []
    for _ in range(repeats):
        sample_N = rng.integers(0, count, count)
        drawn_TN = sample_N[_draws(rng, TREES, count)]
        grown = forest.grow(levels_ND, np.tile(loss_N, (TREES, 1)), drawn_TN, rng)
        share_RD.append(forest.shares(grown).mean(axis=0))
    low_D, high_D = np.quantile(share_RD, [0.05, 0.95], axis=0)
    return pd.DataFrame({"setting": names, "low": low_D, "high": high_D})


def _draws(rng: np.random.Generator, trees: int, count: int) -> npt.NDArray[np.intp]:
    """A bootstrap sample of the suggestions for each tree."""
    return rng.integers(0, count, (trees, count))


def _regressed(made: pd.DataFrame, names: list[str]) -> tuple[list[str], Floats, Floats]:
    """Settings that vary, their levels [N, D] and the clipped losses [N]; no names if too few."""
    whole = made[made["status"] != "stopped"]
    names = [name for name in names if whole[name].nunique(dropna=False) > 1]
    if len(whole) < MIN_FOR_IMPORTANCE or not names or whole["loss"].nunique() < 2:
        return [], np.empty((0, 0)), np.empty(0)
    loss_N = whole["loss"].clip(upper=clip_at(whole["loss"]))
    levels_ND = np.stack([forest.levels(whole[name]) for name in names], axis=1)
    return names, levels_ND, loss_N.to_numpy(dtype=np.float64)


def lowest_of(n: int) -> float:
    """E[min] of n independent standard normals: the integral of n z phi(z) (1 - Phi(z))^(n-1).

    It is their first order statistic (David and Nagaraja 2003, Order Statistics, section 3.1):
    how many standard deviations the lowest of n equal trials lies below their mean by luck.
    """
    z = np.linspace(-10.0, 10.0, 20_001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return float(np.trapezoid(n * z * density * special.ndtr(-z) ** (n - 1), z))


def grid_anova(trials: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Shares of the loss' variance on a full grid, free of what the noise of seeds adds to them.

    With f_U the part of the cell means that depends on the settings U jointly and on no fewer,
    SS_U = N mean(f_U^2) of N trials holds df_U = product of (levels - 1) times the variance of
    the noise. Omega squared takes that off (Hays 1963; Olejnik and Algina 2003,
    doi:10.1037/1082-989X.8.4.434):

        omega2_U = (SS_U - df_U MS_e) / (SS_total + MS_e)

    and is 0 where it would be negative. Seeds are blocks, as every cell has the same ones: MS_e
    is the mean square of seed by cell, (cells - 1)(seeds - 1) degrees of freedom.

    Columns `effect`, `share`, the largest first; interactions of three or more settings are one
    row, and the last row, `seeds`, is what is left. Empty where the grid has gaps, with one seed
    (its noise is unknown) or where all losses are equal.
    """
    frame = trials.assign(loss=standing_in(trials, "val_loss")).dropna(subset=["loss"])
    levels = frame[[*names, "seed"]].nunique(dropna=False)
    names = [name for name in names if levels[name] > 1]
    *shape, seeds = (int(levels[name]) for name in (*names, "seed"))
    table = frame.groupby([*names, "seed"], dropna=False)["loss"].agg(["mean", "count"])
    whole = len(table) == math.prod(shape) * seeds and (table["count"] == 1).all()
    if not names or seeds < 2 or not whole or frame["loss"].nunique() < 2:
        return pd.DataFrame(columns=["effect", "share"])
    loss = table["mean"].sort_index().to_numpy(dtype=np.float64).reshape([*shape, seeds])
    mean: Floats = loss.mean(axis=-1)
    axes = range(len(names))
    of_seeds, grand = loss.mean(axis=tuple(axes)), loss.mean()
    error_ss = float(((loss - mean[..., None] - of_seeds + grand) ** 2).sum())
    error_ms = error_ss / ((mean.size - 1) * (seeds - 1))
    total = float(((loss - grand) ** 2).sum()) + error_ms
    shares: dict[str, float] = {}
    for order in range(1, len(names) + 1):
        for chosen in itertools.combinations(axes, order):
            effect = mean
            for axis in axes:  # f_U: less its mean along the settings of U, averaged along others
                along: Floats = effect.mean(axis=axis, keepdims=True)
                effect = effect - along if axis in chosen else along
            freedom = math.prod(shape[axis] - 1 for axis in chosen)
            square = loss.size * float((effect**2).mean())
            name = " x ".join(names[a] for a in chosen) if order < 3 else "three or more together"
            share = max(0.0, (square - freedom * error_ms) / total)
            shares[name] = shares.get(name, 0.0) + share
    rows = sorted(shares.items(), key=lambda row: -row[1])
    rows.append(("seeds", 1.0 - sum(shares.values())))
    return pd.DataFrame(rows, columns=["effect", "share"])
