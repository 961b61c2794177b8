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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitbench.analysis.findings.arms import labels, names_of
from vitbench.analysis.results import Results, computed_once
from vitbench.analysis.statistics import Floats

R_MAX = 4.0
MIN_WORKLOADS = 3
WORKLOAD_SETTINGS = ("label", "width", "depth", "heads", "mlp", "patch_grid", "image_size", "seed")
MAX_ROWS = 60
_KEPT = (
    "trial_id", "seed", "arm", "way", "workload", "epochs", "seconds", "reached", "never", "whole",
    "images_per_s", "last", "last_s",
)  # fmt: skip


def time_to_target(
    trials: pd.DataFrame, epochs: pd.DataFrame, target: float, names: Sequence[str]
) -> pd.DataFrame:
    """When each trial first had the validation accuracy `target`.

    Seconds are the trial's share of its stack's time, evaluation included: a stack of K members
    that takes 10 s an epoch costs each of them 10 / K. Trials without an epoch are left out.

    Args:
        trials, epochs: tables of the results.
        target: the accuracy.
        names: settings that vary in the sweep, other than the seed.

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
    last = rows.groupby("trial_id")[["epoch", "spent_s"]].max()
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
    return frame[list(_KEPT)].reset_index(drop=True)


@computed_once
def times_of(results: Results) -> pd.DataFrame | None:
    """`time_to_target` of a results folder; None where no target is stated or no epoch ended."""
    if results.target is None or results.epochs.empty:
        return None
    return time_to_target(results.trials, results.epochs, results.target, names_of(results))


@dataclass(frozen=True)
class Arrivals:
    """A Kaplan-Meier curve; every array is of shape [steps].

    Attributes:
        time: at which trials arrived or were censored, rising.
        waiting: estimated share of trials that have not arrived by then, S(t).
        at_risk: trials that had neither arrived nor been censored before.
        arrived, censored: trials at this very time.
    """

    time: Floats
    waiting: Floats
    at_risk: npt.NDArray[np.int64]
    arrived: npt.NDArray[np.int64]
    censored: npt.NDArray[np.int64]

    @property
    def median(self) -> float:
        """The first time by which half have arrived; infinite where the curve does not say."""
        half = np.flatnonzero(self.waiting <= 0.5 + 1e-12)
        return float(self.time[half[0]]) if len(half) else math.inf


def arrivals(times: pd.DataFrame, unit: str = "epochs") -> Arrivals:
    """The Kaplan-Meier curve of trials (rows of `time_to_target`), in epochs or seconds."""
    there = times["reached"].to_numpy(dtype=bool)
    given = times["last" if unit == "epochs" else "last_s"].to_numpy(dtype=np.float64)
    observed: Floats = np.where(there, times[unit].to_numpy(dtype=np.float64), given)
    end = observed.max()
    # Trials that diverged are at risk beyond all that was observed: censored after its end.
    cut = np.where(times["never"].to_numpy(dtype=bool), end + 1.0, observed)
    from scipy import stats  # slow to import

    sample = stats.CensoredData(uncensored=observed[there], right=cut[~there])
    curve = stats.ecdf(sample).sf
    seen = curve.quantiles <= end
    time = np.asarray(curve.quantiles, dtype=np.float64)[seen]
    return Arrivals(
        time=time,
        waiting=np.asarray(curve.probabilities, dtype=np.float64)[seen],
        at_risk=np.array([np.sum(np.where(there, observed, cut) >= t) for t in time], dtype=int),
        arrived=np.array([np.sum(observed[there] == t) for t in time], dtype=int),
        censored=np.array([np.sum(cut[~there] == t) for t in time], dtype=int),
    )


def by_arm(times: pd.DataFrame) -> pd.DataFrame:
    """One row per arm, the lowest median first.

    Columns: `arm`, `trials`, `reached`, `epochs` and `seconds` (Kaplan-Meier medians, infinite
    where half are not known to arrive), `epochs_low`, `epochs_high` (first and last arrival,
    infinite where there is none), `images_per_s` (median), `last` (epochs of its longest trial).
    """
    rows: list[dict[str, Any]] = []
    for arm, part in times.groupby("arm", sort=False):
        there = part.loc[part["reached"], "epochs"]
        rows.append(
            {
                "arm": str(arm),
                "trials": len(part),
                "reached": len(there),
                "epochs": arrivals(part).median,
                "epochs_low": there.min() if len(there) else math.inf,
                "epochs_high": there.max() if len(there) else math.inf,
                "seconds": arrivals(part, "seconds").median,
                "images_per_s": part["images_per_s"].median(),
                "last": int(part["last"].max()),
            }
        )
    table = pd.DataFrame(rows).assign(missed=lambda t: t["trials"] - t["reached"])
    table = table.sort_values(["epochs", "missed", "seconds"], kind="stable")
    return table.drop(columns="missed").reset_index(drop=True)


def table(results: Results) -> list[dict[Any, Any]]:
    """The rows of `by_arm` for the report; empty where no target is stated."""
    times = times_of(results)
    return [] if times is None else by_arm(times).head(MAX_ROWS).to_dict("records")


@dataclass(frozen=True)
class Restricted:
    """Epochs to the target, counted up to a horizon that every trial was observed to.

    Attributes:
        values: min(epochs to the target, horizon), a row per seed, a column per arm. Its mean
            over seeds is the restricted mean time, the area under the arm's Kaplan-Meier curve
            (Royston and Parmar 2013, doi:10.1186/1471-2288-13-152).
        horizon: in epochs.
        left_out: arms that lack a seed, or have a trial that was cut short before it arrived.
    """

    values: pd.DataFrame
    horizon: int
    left_out: tuple[str, ...]


def restricted(times: pd.DataFrame) -> Restricted:
    """Times of all arms that have all seeds, up to their common horizon.

    The horizon is the fewest epochs that a trial was given without arriving; where all arrived or
    diverged, the last arrival. So no time below it is censored, and a trial that diverged counts
    as the horizon.
    """
    seeds = times["seed"].nunique()
    groups = times[times["whole"]].groupby("arm", sort=False)["seed"].nunique()
    kept = [str(arm) for arm, count in groups.items() if count == seeds]
    left_out = tuple(str(arm) for arm in times["arm"].unique() if arm not in kept)
    rows = times[times["arm"].isin(kept)]
    waiting = rows.loc[~rows["reached"] & ~rows["never"], "last"]
    ends = waiting if len(waiting) else rows.loc[rows["reached"], "epochs"]
    horizon = (int(ends.min()) if len(waiting) else int(ends.max())) if len(ends) else 0
    values = rows.assign(value=rows["epochs"].clip(upper=horizon).astype(float)).pivot(
        index="seed", columns="arm", values="value"
    )
    return Restricted(values[kept], horizon, left_out)


def ratios(times: pd.DataFrame) -> pd.DataFrame:
    """Epochs to the target over those of the workload's fastest way: a row per workload and way.

    Columns: `workload`, `arm` (the way), `ratio` (infinite where it did not arrive). Workloads on
    which no way arrived say nothing of their order and are left out, as are workloads that lack a
    way, or on which a trial was cut short.
    """
    known_times = times[times["whole"]].rename(columns={"arm": "settings", "way": "arm"})
    table = known_times.pivot_table(
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
