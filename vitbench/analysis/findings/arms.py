"""Arms: all trials of a sweep that differ in the seed alone, whatever the sweep's axes are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vitbench.analysis.results import Results, computed_once
from vitbench.config import setting_of
from vitbench.errors import UserError
from vitbench.words import decimal

# Column of a setting where it is not the setting's own name.
COLUMNS = {"epochs": "planned_epochs"}
ENDED = ("finished", "diverged")


@dataclass(frozen=True)
class Arms:
    """A metric by seed and arm.

    Attributes:
        names: settings that make an arm.
        settings: a row per arm, a column per name.
        values: a row per seed, a column per complete arm.
        incomplete: arms that lack a seed which others have (still running, crashed or stopped
            early), with the number of seeds that they lack; they carry no claim.
        diverged: arms of which some seed diverged, with how many; the loss before training (for
            an accuracy the chance level) stands in for those.
    """

    names: tuple[str, ...]
    settings: pd.DataFrame
    values: pd.DataFrame
    incomplete: dict[str, int]
    diverged: dict[str, int]


def names_of(results: Results) -> list[str]:
    """Columns of the settings that vary in the sweep, other than the seed, in the file's order.

    Raises:
        UserError: if the tables lack a setting that the sweep varies: they are older than it.
    """
    search = results.sweep["search"]
    axes = [*search.get("space", {}), *search.get("inner", search.get("stack", {}))]
    axes = [setting_of(axis) for axis in axes]
    names = [column_of(axis) for axis in dict.fromkeys(axes) if axis != "seed"]
    missing = [name for name in names if name not in results.trials]
    if missing:
        raise UserError(
            f"{results.folder}: trials.parquet has no column '{missing[0]}', which the sweep "
            f"varies; it was written by an older vitbench; where ledger.jsonl is there, remove "
            f"the tables and they are made again"
        )
    return names


def column_of(axis: str) -> str:
    """The column of the trials table that holds a setting of the sweep file."""
    return COLUMNS.get(axis, axis)


def shape_names(results: Results) -> list[str]:
    """Settings other than seed and learning rate that have more than one value."""
    trials = results.trials
    return [n for n in names_of(results) if n != "lr" and trials[n].nunique(dropna=False) > 1]


def by_arm(results: Results, metric: str, values: pd.Series | None = None) -> Arms:
    """A metric by seed and arm; the value before training stands in for models that diverged.

    Losses are capped at the loss before training, so that a model that diverged is never better
    than one that only got worse.

    Args:
        results: of a sweep.
        metric: a column of the trials table, or what `values` are.
        values: of every trial, with what stands in; from the trials table if left out.

    Raises:
        UserError: if two trials are of one arm and seed.
    """
    trials = named_trials(results)
    if values is None:
        values = standing_in(trials, metric)
    arm_N, arms = pd.factorize(trials["arm"])
    seed_N, seeds = pd.factorize(trials["seed"], sort=True)
    values_SA = np.full((len(seeds), len(arms)), math.nan)
    values_SA[seed_N, arm_N] = values
    lacking = dict(zip(arms, np.isnan(values_SA).sum(axis=0).tolist(), strict=True))
    table = pd.DataFrame(values_SA, pd.Index(seeds, name="seed"), pd.Index(arms, name="arm"))
    gone = trials["arm"][trials["status"] == "diverged"].value_counts(sort=False)
    return Arms(
        names=tuple(names_of(results)),
        settings=settings_of_arms(results),
        values=table[[arm for arm in arms if not lacking[arm]]],
        incomplete={str(arm): count for arm, count in lacking.items() if count},
        diverged={str(arm): int(count) for arm, count in gone.items()},
    )


@computed_once
def settings_of_arms(results: Results) -> pd.DataFrame:
    """The settings that make each arm: a row per arm by its name, a column per setting."""
    names = names_of(results)
    return named_trials(results)[["arm", *names]].drop_duplicates("arm").set_index("arm")


@computed_once
def named_trials(results: Results) -> pd.DataFrame:
    """The trials table with a column `arm`, the arm in words.

    Raises:
        UserError: if two trials are of one arm and seed.
    """
    names = names_of(results)
    trials = results.trials.assign(arm=labels(results.trials, names))
    twice = trials.duplicated(["arm", "seed"])
    if twice.any():
        row = trials[twice].iloc[0]
        raise UserError(
            f"{results.folder}: two trials are '{row['arm']}' with seed {row['seed']}, and an "
            f"average over them would count one seed twice; the tables are damaged, or were "
            f"joined by hand; remove one of the two"
        )
    return trials


def standing_in(trials: pd.DataFrame, metric: str) -> pd.Series:
    """The metric of every trial; where it diverged the value before training, without an end none.

    The chance level of an accuracy is exp(-loss before training), that of a uniform guess.
    """
    start_N = trials["initial_val_loss"].to_numpy(dtype=np.float64, na_value=math.nan)
    value_N = trials[metric].to_numpy(dtype=np.float64, na_value=math.nan)
    before_N = np.exp(-start_N) if metric.endswith("accuracy") else start_N
    if metric.endswith("loss"):
        value_N = np.fmin(value_N, start_N)
    diverged_N = (trials["status"] == "diverged").to_numpy(dtype=bool)
    value_N = np.where(np.isfinite(value_N) & ~diverged_N, value_N, before_N)
    ended_N = trials["status"].isin(ENDED).to_numpy(dtype=bool)
    return pd.Series(np.where(ended_N, value_N, math.nan), index=trials.index)


def above_start(trials: pd.DataFrame) -> pd.Series:
    """Whether a model that did not diverge ends at a loss for which `standing_in` puts another."""
    losses = trials[["train_loss", "val_loss", "test_loss"]].astype(float)
    above = losses.gt(trials["initial_val_loss"].astype(float), axis=0).any(axis=1)
    return above & trials["status"].isin(ENDED) & (trials["status"] != "diverged")


_CLASSES = {"mnist": 10, "digits": 10}


def chance_of(results: Results, label: str = "") -> float | None:
    """The accuracy of the best answer that looks at no image; None where it is not known.

    That of a label is the share of its majority, over all labels the mean of these; of classes it
    is a guess among as many, or where those are not known exp(-loss before training).
    """
    rates = results.labels
    if not rates.empty:
        rates = rates[rates["label"] == label] if label else rates
        value = float(rates["majority_rate"].astype(float).mean())
    elif results.dataset in _CLASSES:
        value = 1 / _CLASSES[results.dataset]
    else:
        value = math.exp(-float(results.trials["initial_val_loss"].astype(float).mean()))
    return value if math.isfinite(value) else None


def labels(trials: pd.DataFrame, names: list[str]) -> pd.Series:
    """The arm of each trial in words: `lr 0.003, batch size 16`."""
    if not names:
        return pd.Series("all", index=trials.index, dtype="object")
    parts = [trials[name].map(lambda value, name=name: setting(name, value)) for name in names]
    label = parts[0].astype("object")
    for name, part in zip(names[1:], parts[1:], strict=True):
        words = ", " + part.astype("object")
        if "model" in names:  # each has settings that the others have not
            words = words.where(trials[name].notna(), "")
        label = label + words
    return label


def in_words(names: Iterable[str], values: Iterable[object]) -> str:
    """Several settings in words; where models differ, only those that this one has."""
    pairs = list(zip(names, values, strict=True))
    if any(name == "model" for name, _ in pairs):
        pairs = [(name, value) for name, value in pairs if not pd.isna(value)]  # type: ignore[call-overload]
    return ", ".join(setting(name, value) for name, value in pairs)


def by_settings(
    frame: pd.DataFrame, names: list[str], sort: bool = False
) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """A table in parts, one for each combination of settings: (values, rows).

    Without names it is one part, with no values.
    """
    return list(frame.groupby(names, dropna=False, sort=sort)) if names else [((), frame)]


def setting(name: str, value: object) -> str:
    """One setting in words."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        shown = "none"
    else:
        shown = decimal(value) if isinstance(value, float) else str(value)
    return f"{name.replace('_', ' ')} {shown}"
