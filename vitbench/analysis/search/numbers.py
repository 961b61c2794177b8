"""What a search over settings shows: which settings matter, what more trials would bring.

Needs the tables alone. optuna is imported where the random forest is asked for, and nowhere else.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitbench.analysis.findings.arms import standing_in
from vitbench.analysis.results import Results, computed_once
from vitbench.analysis.statistics import Floats

MIN_FOR_IMPORTANCE = 20
CLIP_QUANTILE = 0.9
_ENDED = ("finished", "stopped", "diverged", "budget")
_MIN_RANKED = 5


def settings(results: Results) -> list[str]:
    """Names of the axes of the search space that have a column."""
    return [name for name in results.sweep["search"]["space"] if name in results.trials]


@computed_once
def suggestions(results: Results) -> pd.DataFrame:
    """One row per suggestion (stack), in the order in which they were made.

    Columns: `number`, `stack_id`, the settings, `loss` (lowest over the stack's other settings of
    the mean over seeds of the best validation loss, with the loss before training for models that
    diverged at once), `epochs` (of all its models), `status` (`finished` if any model was).
    """
    trials = results.trials[results.trials["status"].isin(_ENDED)]
    inner = [name for name in results.sweep["search"].get("inner", {}) if name != "seed"]
    loss = trials["best_val_loss"].astype(float)
    frame = trials.assign(loss=loss.where(np.isfinite(loss), trials["initial_val_loss"]))
    rows = []
    for stack_id, part in frame.groupby("stack_id", sort=False):
        arms = part.groupby(inner, dropna=False)["loss"].mean() if inner else part[["loss"]].mean()
        first = part.iloc[0]
        row = {name: first[name] for name in settings(results)}
        done = (part["status"] == "finished").any()
        row |= {"stack_id": stack_id, "loss": float(arms.min())}
        row |= {"epochs": int(part["epochs"].fillna(0).sum())}
        row |= {"status": "finished" if done else str(first["status"])}
        rows.append(row)
    names = ["stack_id", *settings(results), "loss", "epochs", "status"]
    found = pd.DataFrame(rows, columns=names).dropna(subset=["loss"]).reset_index(drop=True)
    found.insert(0, "number", np.arange(len(found)))
    return found


def best_so_far(found: pd.DataFrame) -> pd.DataFrame:
    """Lowest loss of the suggestions so far against epochs spent on all of them, in their order."""
    return pd.DataFrame(
        {
            "epochs_spent": found["epochs"].cumsum(),
            "loss": found["loss"],
            "best": found["loss"].cummin(),
            "status": found["status"],
        }
    )


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
    found, rung = [], int(search["grace_epochs"])
    while rung < last:
        found.append(rung)
        rung *= int(search["reduction_factor"])
    return found


def rung_correlation(results: Results) -> pd.DataFrame:
    """Kendall's tau between the losses at each rung and at the end, of trials that finished.

    Only those that were let through have a final loss, so tau understates the agreement over all
    trials. Columns: `epoch`, `tau` (NaN below five trials), `trials`.
    """
    from scipy.stats import kendalltau  # slow to import

    finished = results.trials[results.trials["status"] == "finished"]
    final = finished.set_index("trial_id")["val_loss"].astype(float).dropna()
    rows = []
    for epoch in rungs(results):
        at = results.epochs[results.epochs["epoch"] == epoch].set_index("trial_id")["val_loss"]
        both = pd.concat([at.astype(float), final], axis=1, join="inner", keys=["rung", "final"])
        both = both.dropna()
        enough = len(both) >= _MIN_RANKED
        tau = float(kendalltau(both["rung"], both["final"])[0]) if enough else np.nan
        rows.append({"epoch": epoch, "tau": tau, "trials": len(both)})
    return pd.DataFrame(rows, columns=["epoch", "tau", "trials"])


def importance(
    found: pd.DataFrame, names: list[str], *, repeats: int = 20, trees: int = 32, seed: int = 0
) -> pd.DataFrame:
    """Share of the loss' variance by setting: fANOVA on a random forest (Hutter et al. 2014).

    Losses above their 90 % quantile are clipped there, so that a few that diverged do not decide
    it. `low` and `high` are the 5 % and 95 % quantiles over bootstrap samples of the suggestions.

    Args:
        found: of `suggestions`; ones that were stopped early are left out.
        names: the settings.

    Returns:
        Columns `setting`, `share`, `low`, `high`, `trials`; empty below 20 suggestions.
    """
    columns = ["setting", "share", "low", "high", "trials"]
    whole = found[found["status"] != "stopped"]
    names = [name for name in names if whole[name].nunique() > 1]
    if len(whole) < MIN_FOR_IMPORTANCE or not names:
        return pd.DataFrame(columns=columns)
    losses = whole["loss"].clip(upper=float(whole["loss"].quantile(CLIP_QUANTILE)))
    whole = whole.assign(loss=losses)
    rng = np.random.default_rng(seed)
    shares = _forest_shares(whole, names, trees, seed)
    samples = [
        _forest_shares(whole.iloc[rng.integers(0, len(whole), len(whole))], names, trees, seed + k)
        for k in range(1, repeats + 1)
    ]
    rows = []
    for name in sorted(names, key=lambda n: -shares[n]):
        low, high = np.quantile([sample[name] for sample in samples], [0.05, 0.95])
        rows.append([name, shares[name], float(low), float(high), len(whole)])
    return pd.DataFrame(rows, columns=columns)


def _forest_shares(
    whole: pd.DataFrame, names: list[str], trees: int, seed: int
) -> dict[str, float]:
    """Optuna's fANOVA on a study made of these rows."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.importance import FanovaImportanceEvaluator

    varying = [name for name in names if whole[name].nunique() > 1]
    shares = dict.fromkeys(names, 0.0)
    if whole["loss"].nunique() < 2 or not varying:
        return shares
    space: dict[str, BaseDistribution] = {}
    for name in varying:
        values = whole[name]
        if pd.api.types.is_numeric_dtype(values):
            low, high = float(values.min()), float(values.max())
            space[name] = FloatDistribution(low, high, log=low > 0 and high / low >= 30)
        else:
            space[name] = CategoricalDistribution([str(v) for v in values.unique()])
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study()
        for row in whole.to_dict("records"):
            params: dict[str, Any] = {
                name: float(row[name]) if isinstance(space[name], FloatDistribution) else
                str(row[name])
                for name in varying
            }  # fmt: skip
            trial = optuna.create_trial(params=params, distributions=space, value=row["loss"])
            study.add_trial(trial)
        evaluator = FanovaImportanceEvaluator(n_trees=trees, seed=seed)
        shares.update(optuna.importance.get_param_importances(study, evaluator=evaluator))
    finally:
        optuna.logging.set_verbosity(level)
    return shares


def grid_anova(trials: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Exact shares of the loss' variance on a full grid, with what seeds alone explain.

    With f_U the part of the cell means that depends on the settings U jointly and on no fewer,
    Var = sum over U of mean(f_U^2) + mean variance within cells. Interactions of three or more
    settings are one row. Columns: `effect`, `share`; empty where the grid has gaps.
    """
    frame = trials.assign(loss=standing_in(trials, "val_loss")).dropna(subset=["loss"])
    levels = {name: frame[name].nunique(dropna=False) for name in names}
    names = [name for name in names if levels[name] > 1]
    columns = ["effect", "share"]
    if not names:
        return pd.DataFrame(columns=columns)
    cells = frame.groupby(names, dropna=False)["loss"].agg(["mean", "count"])
    size = int(np.prod([levels[name] for name in names]))
    if len(cells) != size or cells["count"].nunique() != 1:
        return pd.DataFrame(columns=columns)
    shape = [levels[name] for name in names]
    mean: Floats = cells["mean"].sort_index().to_numpy(dtype=np.float64).reshape(shape)
    total = float(frame["loss"].var(ddof=0))
    if total == 0:
        return pd.DataFrame(columns=columns)
    axes = range(len(names))
    parts: dict[tuple[int, ...], Floats] = {(): np.broadcast_to(mean.mean(), mean.shape)}
    rows: list[tuple[str, float]] = []
    rest = 0.0
    for order in range(1, len(names) + 1):
        for chosen in itertools.combinations(axes, order):
            others = tuple(a for a in axes if a not in chosen)
            effect = np.broadcast_to(mean.mean(axis=others, keepdims=True), mean.shape)
            for size_below in range(order):
                for below in itertools.combinations(chosen, size_below):
                    effect = effect - parts[below]
            parts[chosen] = effect
            share = float((effect**2).mean()) / total
            if order <= 2:
                rows.append((" x ".join(names[a] for a in chosen), share))
            else:
                rest += share
    if len(names) > 2:
        rows.append(("three or more together", rest))
    within = 1.0 - sum(share for _, share in rows)
    rows.sort(key=lambda row: -row[1])
    rows.append(("seeds", max(0.0, within)))
    return pd.DataFrame(rows, columns=columns)
