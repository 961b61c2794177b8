"""How soon an arm reaches a validation accuracy that was stated: epochs, seconds, profiles.

An arm is a way to train (learning rate, optimiser, batch size ...), a workload is what is trained:
one model on one label with one seed. On each workload every arm takes t epochs to the target, or
never arrives; r = t / (t of the fastest arm there). The performance profile rho(tau) is the share
of workloads on which an arm has r <= tau, and its score

    B = 1 / (r_max - 1) * integral of rho from 1 to r_max,  r_max = 4

is 1 for an arm that is the fastest everywhere; after Dahl et al. 2023 (arXiv:2306.07179).
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from vitbench.analysis.findings.arms import labels
from vitbench.analysis.results import Results, computed_once
from vitbench.analysis.statistics import Floats

R_MAX = 4.0
MIN_WORKLOADS = 3
ARM_SETTINGS = (
    "lr", "optimizer", "batch_size", "weight_decay", "schedule", "dropout", "train_images",
)  # fmt: skip
WORKLOAD_SETTINGS = ("label", "width", "depth", "heads", "mlp", "patch_grid", "image_size", "seed")
_KEPT = ("trial_id", "arm", "workload", "epochs", "seconds", "reached", "images_per_s", "last")


def time_to_target(trials: pd.DataFrame, epochs: pd.DataFrame, target: float) -> pd.DataFrame:
    """When each trial first had the validation accuracy `target`.

    Columns: `trial_id`, `arm`, `workload` (in words), `epochs` and `seconds` (infinite where it
    did not arrive), `reached`, `images_per_s`, `last` (epochs it was given: the censoring time).
    Seconds are the trial's share of its stack's time, evaluation included: a stack of K members
    that takes 10 s an epoch costs each of them 10 / K. Trials without an epoch are left out.
    """
    rows = epochs.sort_values(["trial_id", "epoch"])
    rows = rows.assign(spent_s=rows.groupby("trial_id")["epoch_s"].cumsum())
    there = rows[rows["val_accuracy"].astype(float) >= target]
    first = there.drop_duplicates("trial_id").set_index("trial_id")
    last = rows.groupby("trial_id")["epoch"].max()
    frame = trials[trials["trial_id"].isin(last.index)].copy()
    arms = [name for name in ARM_SETTINGS if _varies(frame, name)]
    loads = [name for name in WORKLOAD_SETTINGS if _varies(frame, name)]
    members = frame["stack_size"].astype(float).fillna(1.0).clip(lower=1.0)
    ids = frame["trial_id"]
    frame["arm"] = labels(frame, arms)
    frame["workload"] = labels(frame, loads)
    frame["epochs"] = ids.map(first["epoch"].astype(float)).astype(float).fillna(math.inf)
    frame["seconds"] = (ids.map(first["spent_s"]).astype(float) / members).fillna(math.inf)
    frame["reached"] = np.isfinite(frame["epochs"])
    frame["last"] = ids.map(last).astype(int)
    return frame[list(_KEPT)].reset_index(drop=True)


@computed_once
def times_of(results: Results) -> pd.DataFrame | None:
    """`time_to_target` of a results folder; None where no target is stated or no epoch ended."""
    if results.target is None or results.epochs.empty:
        return None
    return time_to_target(results.trials, results.epochs, results.target)


def _varies(frame: pd.DataFrame, name: str) -> bool:
    return name in frame and frame[name].nunique(dropna=False) > 1


def by_arm(times: pd.DataFrame) -> pd.DataFrame:
    """One row per arm, the fastest first.

    Columns: `arm`, `trials`, `reached`, `epochs` (median over trials, a miss being infinite),
    `epochs_low`, `epochs_high` (fastest and slowest trial), `seconds` (median), `images_per_s`
    (median), `last` (epochs of its longest trial).
    """
    grouped = times.groupby("arm", sort=False)
    table = grouped.agg(
        trials=("trial_id", "count"),
        reached=("reached", "sum"),
        epochs=("epochs", "median"),
        epochs_low=("epochs", "min"),
        epochs_high=("epochs", "max"),
        seconds=("seconds", "median"),
        images_per_s=("images_per_s", "median"),
        last=("last", "max"),
    )
    table = table.reset_index().assign(missed=lambda t: t["trials"] - t["reached"])
    table = table.sort_values(["epochs", "missed", "seconds"], kind="stable")
    return table.drop(columns="missed").reset_index(drop=True)


def ratios(times: pd.DataFrame) -> pd.DataFrame:
    """Epochs to the target over those of the workload's fastest arm: a row per workload and arm.

    Columns: `workload`, `arm`, `ratio` (infinite where the arm did not arrive). Workloads on which
    no arm arrived say nothing of their order and are left out, as are workloads that lack an arm.
    """
    table = times.pivot_table(
        index="workload", columns="arm", values="epochs", aggfunc="median", sort=False
    )
    table = table.dropna()
    best = table.min(axis="columns")
    known = table[np.isfinite(best)]
    relative: pd.DataFrame = known.div(best[known.index], axis="index").reset_index()
    return relative.melt("workload", var_name="arm", value_name="ratio")


def profile(relative: pd.DataFrame) -> pd.DataFrame:
    """rho(tau) of each arm as a staircase from 1 to R_MAX, with its score, the best arm first.

    Args:
        relative: of `ratios`.

    Returns:
        Columns `arm`, `tau`, `share`, `score`, `workloads`; empty below two arms or three
        workloads.
    """
    columns = ["arm", "tau", "share", "score", "workloads"]
    count = relative["workload"].nunique()
    if count < MIN_WORKLOADS or relative["arm"].nunique() < 2:
        return pd.DataFrame(columns=columns)
    parts = []
    for arm, part in relative.groupby("arm", sort=False):
        values: Floats = np.sort(part["ratio"].to_numpy(dtype=np.float64))
        steps = np.unique(np.concatenate([[1.0], values[values <= R_MAX], [R_MAX]]))
        share = np.searchsorted(values, steps, side="right") / count
        parts.append(
            pd.DataFrame(
                {"arm": arm, "tau": steps, "share": share, "score": score(values)},
            )
        )
    found = pd.concat(parts, ignore_index=True).assign(workloads=count)
    return found.sort_values(["score", "arm", "tau"], ascending=[False, True, True])[
        columns
    ].reset_index(drop=True)


def score(values: Floats) -> float:
    """B of an arm, from its ratios on all workloads: the mean of (R_MAX - r)+ / (R_MAX - 1)."""
    return float(np.clip(R_MAX - values, 0.0, None).mean() / (R_MAX - 1.0))
