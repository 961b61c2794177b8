"""How soon an arm reaches a validation accuracy that was stated: epochs, seconds, profiles.

A trial that has not arrived is not a failure. Where it ended or was cut short (finished, running,
stopped, interrupted, out of budget), it might have arrived later: it is censored at its last
epoch. One that diverged never arrives: it stays at risk to the end. The share that has arrived
by an epoch is one minus the Kaplan-Meier estimate (1958, doi:10.1080/01621459.1958.10501452)

    S(t) = product over arrival times t_i <= t of (1 - arrivals at t_i / trials at risk at t_i)

with trials censored at t_i still at risk there; the median is the first t with S(t) <= 1/2.

For profiles, a way to train (learning rate, optimiser, batch size ...) is told from a workload:
one model on one label with one seed. On each workload every way takes t epochs to the target, or
does not arrive in its epochs; r = t / (t of the fastest way there). The performance profile
rho(tau) is the share of workloads on which a way has r <= tau, and its score

    B = 1 / (r_max - 1) * integral of rho from 1 to r_max,  r_max = 4

is 1 for one that is the fastest everywhere; after Dahl et al. 2023 (arXiv:2306.07179).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vitbench.analysis.findings.arms import labels, names_of
from vitbench.analysis.results import Results, computed_once
from vitbench.analysis.statistics import Floats
from vitbench.records.tables import not_evaluated

R_MAX = 4.0
_CURVE = ("epochs", "seconds", "reached", "never", "last", "last_s")
_NEVER = {"epochs_low": math.inf, "epochs_high": math.inf}
MIN_WORKLOADS = 3
WORKLOAD_SETTINGS = ("label", "width", "depth", "heads", "mlp", "patch_grid", "image_size", "seed")
_KEPT = ["trial_id", "seed", "arm", "way", "workload", "epochs", "seconds", "reached", "never",
         "whole", "images_per_s", "last", "last_s"]  # fmt: skip


def time_to_target(
    trials: pd.DataFrame, epochs: pd.DataFrame, target: float, names: Sequence[str]
) -> pd.DataFrame:
    """When each trial first had the validation accuracy `target`, among epochs with an evaluation.

    A trial without such an epoch is left out.

    Seconds are the trial's share of its stack's time, evaluation included: a stack of K members
    that takes 10 s an epoch costs each of them 10 / K. `names` are the settings that vary in the
    sweep, other than the seed.

    Returns:
        Columns: `trial_id`, `seed`, `arm`, `way` and `workload` (in words), `epochs` and `seconds`
        (infinite where it did not arrive), `reached`, `never` (it diverged before it arrived),
        `whole` (it ended as planned, diverged or arrived: nothing cut it short), `images_per_s`,
        `last` and `last_s` (epochs and seconds that it was given: where it is censored).
    """
    rows = epochs.sort_values(["trial_id", "epoch"])
    rows = rows.assign(spent_s=rows.groupby("trial_id")["epoch_s"].cumsum())
    there = rows[rows["val_accuracy"].astype(float) >= target]
    first = there.drop_duplicates("trial_id").set_index("trial_id")
    last = rows[~not_evaluated(rows)].groupby("trial_id")[["epoch", "spent_s"]].max()
    frame = trials[trials["trial_id"].isin(last.index)].copy()
    members = frame["stack_size"].astype(float).fillna(1.0).clip(lower=1.0)
    ids = frame["trial_id"]
    frame["arm"] = labels(frame, list(names))
    frame["way"] = labels(frame, [name for name in names if name not in WORKLOAD_SETTINGS])
    shared = [name for name in names if name in WORKLOAD_SETTINGS]
    frame["workload"] = labels(frame, [*shared, "seed"])
    frame["epochs"] = ids.map(first["epoch"].astype(float)).astype(float).fillna(math.inf)
    frame["seconds"] = (ids.map(first["spent_s"]).astype(float) / members).fillna(math.inf)
    frame["reached"] = np.isfinite(frame["epochs"])
    frame["never"] = (frame["status"] == "diverged") & ~frame["reached"]
    frame["whole"] = frame["reached"] | frame["status"].isin(["finished", "diverged"])
    frame["last"] = ids.map(last["epoch"]).astype(int)
    frame["last_s"] = ids.map(last["spent_s"]).astype(float) / members
    return frame[_KEPT].reset_index(drop=True)


@computed_once
def times_of(results: Results) -> pd.DataFrame | None:
    """`time_to_target` of a results folder; None where no target is stated or no epoch ended.

    Nor where the number of training images varies: an epoch is then not the same for all.
    """
    if results.target is None or results.epochs.empty:
        return None
    if "train_images" in names_of(results) and results.trials["train_images"].nunique() > 1:
        return None
    return time_to_target(results.trials, results.epochs, results.target, names_of(results))


def _arrivals(times: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """The Kaplan-Meier curve of trials, from arrays of columns of `time_to_target`.

    A value per time at which trials arrived or were censored, rising: the time (named `unit`,
    epochs or seconds); `at_risk` (had neither arrived nor been censored before), `arrivals` and
    `censored` at this very time, and `waiting`, the estimated share that has not arrived, S(t).
    """
    reached_N, last_N = times["reached"], times["last" if unit == "epochs" else "last_s"]
    # One that arrived was seen until then; one that diverged is at risk for ever.
    seen_N = np.where(reached_N | times["never"], times[unit], last_N).astype(np.float64)
    time_T, place_N, trials_T = np.unique(seen_N, return_inverse=True, return_counts=True)
    arrivals_T = np.bincount(place_N, weights=reached_N, minlength=len(time_T)).astype(int)
    at_risk_T = trials_T[::-1].cumsum()[::-1]
    curve = {
        unit: time_T,
        "arrivals": arrivals_T,
        "censored": trials_T - arrivals_T,
        "at_risk": at_risk_T,
        "waiting": np.cumprod((at_risk_T - arrivals_T) / at_risk_T),
    }
    return {name: column[time_T < math.inf] for name, column in curve.items()}


def _median(time_T: Floats, waiting_T: Floats) -> float:
    """The first time by which half have arrived; infinite where the curve does not say."""
    return float(min(time_T[waiting_T <= 0.5 + 1e-12], default=math.inf))


def _arms(times: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each arm with its trials' columns as arrays, in the order in which arms appear.

    A search has as many arms as trials: a frame for each would take minutes of thousands.
    """
    columns = {name: times[name].to_numpy() for name in (*_CURVE, "images_per_s")}
    codes_N, arms = pd.factorize(times["arm"])
    order_N = np.argsort(codes_N, kind="stable")
    ends = np.searchsorted(codes_N[order_N], np.arange(1, len(arms)))
    for arm, place in zip(arms, np.split(order_N, ends), strict=True):
        yield str(arm), {name: column[place] for name, column in columns.items()}


def curves(times: pd.DataFrame) -> pd.DataFrame:
    """The Kaplan-Meier curve of every arm after a row at epoch 0, in the order of the arms.

    Columns: `epochs`, `share` (arrived by then), `at_risk`, `arrivals`, `censored`, `arm`,
    `models`, `median`.
    """
    start = {"epochs": 0.0, "at_risk": 0, "arrivals": 0, "censored": 0, "waiting": 1.0}
    parts: dict[str, list[Any]] = {name: [] for name in (*start, "arm", "models", "median")}
    for arm, of_arm in _arms(times):
        curve, models = _arrivals(of_arm, "epochs"), len(of_arm["last"])
        rows = 1 + len(curve["epochs"])
        middle = _median(curve["epochs"], curve["waiting"])
        for name, first in (start | {"at_risk": models}).items():
            parts[name].append(np.append([first], curve[name]))
        for name, value in (("arm", arm), ("models", models), ("median", middle)):
            parts[name].append(np.full(rows, value, dtype=object if name == "arm" else None))
    frame = pd.DataFrame({name: np.concatenate(values) for name, values in parts.items()})
    frame.insert(1, "share", 1.0 - frame.pop("waiting"))
    return frame


def by_arm(times: pd.DataFrame) -> pd.DataFrame:
    """One row per arm, the lowest median first.

    Columns: `arm`, `trials`, `reached`, `epochs` and `seconds` (Kaplan-Meier medians, infinite
    where half are not known to arrive), `epochs_low`, `epochs_high` (first and last arrival,
    infinite where there is none), `images_per_s` (median), `last` (epochs of its longest trial).
    """
    rows: list[dict[str, Any]] = []
    for arm, part in _arms(times):
        there = part["epochs"][part["reached"]]
        row = {"arm": arm, "trials": len(part["last"]), "reached": len(there)}
        for unit in ("epochs", "seconds"):
            curve = _arrivals(part, unit)
            row[unit] = _median(curve[unit], curve["waiting"])
        row |= {"epochs_low": there.min(), "epochs_high": there.max()} if len(there) else _NEVER
        speeds = part["images_per_s"].astype(np.float64)
        known = speeds[~np.isnan(speeds)]
        row["images_per_s"] = float(np.median(known)) if len(known) else math.nan
        rows.append({**row, "last": int(part["last"].max())})
    rows.sort(key=lambda row: (row["epochs"], row["trials"] - row["reached"], row["seconds"]))
    return pd.DataFrame(rows)


@computed_once
def arms_of(results: Results) -> pd.DataFrame | None:
    """`by_arm` of a results folder; None where `times_of` is."""
    times = times_of(results)
    return None if times is None else by_arm(times)


@dataclass(frozen=True)
class Restricted:
    """Epochs to the target, counted up to a horizon that every trial was observed to.

    The mean of `values` over seeds is the restricted mean time, the area under the arm's
    Kaplan-Meier curve (Royston and Parmar 2013, doi:10.1186/1471-2288-13-152).
    """

    values: pd.DataFrame  # min(epochs to the target, horizon): a row per seed, a column per arm
    horizon: int  # in epochs
    left_out: tuple[str, ...]  # arms that lack a seed, or have a trial that was cut short


def restricted(times: pd.DataFrame) -> Restricted:
    """Times of all arms that have all seeds, up to their common horizon.

    The horizon is the fewest epochs that a trial was given without arriving; where all arrived or
    diverged, the last arrival. So no time below it is censored, and a trial that diverged counts
    as the horizon.
    """
    seeds = times["seed"].nunique()
    groups = times[times["whole"]].groupby("arm", sort=False)["seed"].nunique()
    kept = [str(arm) for arm in groups.index[groups == seeds]]
    left_out = tuple(str(arm) for arm in times["arm"].unique() if arm not in kept)
    rows = times[times["arm"].isin(kept)]
    waiting = rows.loc[~rows["reached"] & ~rows["never"], "last"]
    arrived = rows.loc[rows["reached"], "epochs"]
    horizon = int(waiting.min()) if len(waiting) else int(max(arrived, default=0))
    values = rows.assign(value=rows["epochs"].clip(upper=horizon).astype(float))
    return Restricted(
        values.pivot(index="seed", columns="arm", values="value")[kept], horizon, left_out
    )


def ratios(times: pd.DataFrame) -> pd.DataFrame:
    """Epochs to the target over those of the workload's fastest way: a row per workload and way.

    Columns: `workload`, `arm` (the way), `ratio` (infinite where it did not arrive). Workloads on
    which no way arrived say nothing of their order and are left out, as are workloads that lack a
    way, or on which a trial was cut short.
    """
    ways = times[times["whole"]].rename(columns={"arm": "settings", "way": "arm"})
    table = ways.pivot_table("epochs", "workload", "arm", aggfunc="median", sort=False).dropna()
    best = table.min(axis="columns")
    known = np.isfinite(best)
    relative: pd.DataFrame = table[known].div(best[known], axis="index").reset_index()
    return relative.melt("workload", var_name="arm", value_name="ratio")


def profile(relative: pd.DataFrame) -> pd.DataFrame:
    """rho(tau) of each arm as a staircase from 1 to R_MAX, with its score, the best arm first.

    Columns `arm`, `tau`, `share`, `score`, `workloads`; empty below two arms or three workloads.
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
        # The area under the staircase: each workload adds what is right of its own ratio.
        score = float(np.clip(R_MAX - values, 0.0, None).mean() / (R_MAX - 1.0))
        parts.append(pd.DataFrame({"arm": arm, "tau": steps, "share": share, "score": score}))
    profiles = pd.concat(parts, ignore_index=True).assign(workloads=count)
    return profiles.sort_values(
        ["score", "arm", "tau"], ascending=[False, True, True], ignore_index=True
    )
