"""Which labels are harder: raw losses, losses corrected for base rates, and their orders.

Each label is taken at its own learning rate (and other settings): that of lowest mean validation
loss over seeds, so that no label is judged at a rate that suits another. What a model scores that
learned nothing stands in for models that diverged; arms that lack seeds are not chosen. Seeds are
pairs. The measures are described in records.rows.LABELS.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from vitbench.analysis.findings.arms import by_arm, labels, named_trials, names_of
from vitbench.analysis.results import Results, computed_once
from vitbench.analysis.statistics import kendall_tau, mean_interval
from vitbench.records.labels import entropy, excess, noise_floor

_CHOOSE_BY = "best_val_loss"


@dataclass(frozen=True)
class Measure:
    """A measure of difficulty: its column, its name, and whether less means an easier label."""

    column: str
    title: str
    less_is_easier: bool


RAW = Measure("train_loss", "training loss", True)
OVER_CONSTANT = Measure("train_loss_over_constant", "training loss over H(base rate)", True)
NCE = Measure("nce", "normalised cross entropy, test", True)
EXCESS = Measure("excess", "normalised cross entropy above the noise floor, test", True)
MEASURES = (
    RAW,
    OVER_CONSTANT,
    NCE,
    EXCESS,
    Measure("ap_norm", "average precision above chance, test", False),
    Measure("roc_auc", "ROC-AUC, test", False),
    Measure("mcc", "Matthews correlation, test", False),
    Measure("alc", "information gained, mean over epochs", False),
)
# What a model that learned nothing scores; its NCE and training loss are those before training.
_NOTHING_LEARNED = {"ap_norm": 0.0, "roc_auc": 0.5, "mcc": 0.0, "alc": 0.0,
                    "balanced_accuracy": 0.5, "reached": False}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """The labels at their best settings."""

    # Of the labels table, a row per label and seed, with `arm` (the settings chosen) and
    # `train_loss_over_constant`. Empty unless there are two labels to compare.
    rows: pd.DataFrame
    incomplete: tuple[str, ...] = ()  # labels without any arm that has all seeds
    diverged: dict[str, int] = field(default_factory=dict)  # models of the chosen arm, by label


@computed_once
def choice(results: Results) -> Choice:
    """Each label at the complete arm of lowest mean validation loss."""
    return choice_among(results, None)


def choice_among(results: Results, arms: Collection[str] | None) -> Choice:
    """Each label at the best of these arms (of `named_trials`); None for all."""
    table, nothing = results.labels, results.labels.iloc[:0].copy()
    asked = results.trials["label"].dropna().unique()
    alone = len(asked) > 1
    wanted = asked if alone else table["label"].unique()
    if table.empty or len(wanted) < 2:
        return Choice(nothing)
    means = by_arm(results, _CHOOSE_BY).values.mean()
    names = [name for name in names_of(results) if name != "label"]
    trials = named_trials(results)
    trials = trials[trials["arm"].isin(means.index)]
    if arms is not None:
        trials = trials[trials["arm"].isin(arms)]
    parts, incomplete, diverged = [], [], {}
    for label in map(str, wanted):
        of_label = trials[trials["label"] == label] if alone else trials
        if of_label.empty:
            incomplete.append(label)
            continue
        models = of_label[of_label["arm"] == means[of_label["arm"].unique()].idxmin()]
        part = _rows(models, table[table["label"] == label], label)
        parts.append(part.assign(arm=labels(models, names).iloc[0] if names else ""))
        if gone := int((models["status"] == "diverged").sum()):
            diverged[label] = gone
    if len(parts) < 2:
        return Choice(nothing, tuple(incomplete), diverged)
    rows = pd.concat(parts, ignore_index=True)
    return Choice(_scored(rows, results), tuple(incomplete), diverged)


def chosen(results: Results) -> pd.DataFrame:
    """The rows of `choice`."""
    return choice(results).rows


def _rows(models: pd.DataFrame, of_label: pd.DataFrame, label: str) -> pd.DataFrame:
    """A row per model of one label; a model that diverged scores as one that learned nothing."""
    known = of_label.set_index("trial_id")
    part = known.reindex(models["trial_id"]).reset_index()
    part["label"], part["seed"] = label, models["seed"].to_numpy()
    if pd.notna(models["matched"].iloc[0]):
        part["matched"] = part["matched"].fillna(models["matched"].iloc[0])
    if models["label"].notna().all():
        part["task"] = part["task"].fillna("one label")
    gone = (models["status"] == "diverged").to_numpy()
    if not gone.any():
        return part
    shared = ["task", "constant_bce", "majority_rate", "label_noise", "observed_rate", "floor"]
    shared += [f"{split}_base_rate" for split in ("train", "val", "test")]
    known = of_label.reindex(columns=shared).bfill().head(1).dropna(axis="columns")
    part = part.fillna(dict(known.iloc[0])) if len(known) else part
    start = pd.Series(models["initial_val_loss"].astype(float).to_numpy())
    before = (start / part["constant_bce"].astype(float)).fillna(1.0)
    for column, value in _NOTHING_LEARNED.items():
        part.loc[gone, column] = value
    for column, values in (("nce", before), ("test_bce", start), ("train_loss", start)):
        part[column] = part[column].astype(float).where(~gone, values)
    part["rig"] = 1.0 - part["nce"]
    return part


def _scored(rows: pd.DataFrame, results: Results) -> pd.DataFrame:
    """With columns that the labels table lacks, or lacked in earlier versions."""
    constant = rows["train_base_rate"].astype(float).map(entropy)
    nce = rows["nce"].astype(float)
    floor, rate = (
        rows.get(name, pd.Series(math.nan, index=rows.index)).astype(float)
        for name in ("floor", "observed_rate")
    )
    noise = results.environment.get("label_noise")
    if noise is not None:
        rate = rate.fillna(_unrecorded_rate(rows, noise, results.dataset))
        shares = rows["test_base_rate"].astype(float)
        known = [_floor(*pair, noise) for pair in zip(shares, rate, strict=True)]
        floor = floor.fillna(pd.Series(known, index=rows.index))
    return rows.assign(
        train_loss_over_constant=rows["train_loss"].astype(float) / constant.replace(0.0, math.nan),
        observed_rate=rate,
        floor=floor,
        excess=[excess(*pair) for pair in zip(nce, floor, strict=True)],
    )


def _unrecorded_rate(rows: pd.DataFrame, noise: float, dataset: str) -> pd.Series:
    """The rate of labels before matching where it was not recorded; NaN where it is not known."""
    rate, matched = rows["test_base_rate"].astype(float), rows["matched"].notna()
    if matched.any():
        from vitbench.data.sets.faces import faces  # numpy's random drawing: slow to import

        documented = faces.BASE_RATES if dataset == "faces" and noise == faces.NOISE else {}
        before = rows["label"].map(lambda label: documented.get(str(label), math.nan))
        rate = rate.mask(matched, before)
    return rate


def _floor(w: float, p: float, noise: float) -> float:
    if noise == 0.0:
        return 0.0
    return math.nan if math.isnan(p) or math.isnan(w) else noise_floor(w, p, noise)


def headline(rows: pd.DataFrame) -> Measure:
    """What labels are ranked by: the excess where labels are known to be noisy, else the NCE."""
    floor = rows["floor"]
    return EXCESS if floor.notna().all() and (floor > 0).any() else NCE


def is_matched(rows: pd.DataFrame) -> bool:
    """Whether every label was trained on the same numbers of images with and without it."""
    return bool(rows["matched"].notna().all())


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per label and measure, in the order of the sweep.

    Columns: `label`, `measure`, `title`, `mean`, `low`, `high` (t interval; empty below three
    seeds), `seeds`, `rank` (1 is the easiest).
    """
    columns = ["label", "measure", "title", "mean", "low", "high", "seeds"]
    tables = []
    for measure in MEASURES:
        means = []
        for label, values in rows.groupby("label", sort=False)[measure.column]:
            if values.notna().any():
                interval = mean_interval(values.astype(float))
                ends = (interval.mean, interval.low, interval.high, interval.n)
                means.append((label, measure.column, measure.title, *ends))
        if means:
            table = pd.DataFrame(means, columns=columns)
            rank = table["mean"].rank(method="first", ascending=measure.less_is_easier)
            tables.append(table.assign(rank=rank.astype(int)))
    return pd.concat(tables).sort_values("measure", kind="stable", ignore_index=True)


def order(table: pd.DataFrame, measure: str) -> list[str]:
    """Labels from the easiest to the hardest by a measure of `summary`."""
    part = table[table["measure"] == measure].sort_values("rank")
    return [str(label) for label in part["label"]]


def agreement(table: pd.DataFrame, one: str, other: str) -> float:
    """Kendall's tau between the orders by two measures; NaN below two labels."""
    ranks = table.pivot(index="label", columns="measure", values="rank").reindex(
        columns=[one, other]
    )
    both = ranks.dropna().to_numpy()
    return kendall_tau(*both.T) if len(both) > 1 else math.nan


def by_seed(rows: pd.DataFrame, measure: Measure) -> pd.DataFrame | None:
    """A measure of every label (columns) by seed (rows), more being harder; None with gaps."""
    values = rows.pivot(index="seed", columns="label", values=measure.column).astype(float)
    values = values[list(rows["label"].unique())]
    if values.isna().to_numpy().any():
        return None
    return values if measure.less_is_easier else -values


def table(results: Results) -> list[dict[Any, Any]]:
    """Rows for the report: a label each, the easiest by the headline measure first."""
    rows = chosen(results)
    if rows.empty:
        return []
    measures = summary(rows)
    averaged = [
        "train_base_rate", "test_base_rate", "constant_bce", "test_bce", "rig",
        "balanced_accuracy", "test_accuracy", "majority_rate", "floor",
        *(measure.column for measure in MEASURES),
    ]  # fmt: skip
    entries = []
    for label in order(measures, headline(rows).column):
        part = rows[rows["label"] == label]
        reached, epochs = part["reached"].dropna(), part["epochs_to_target"].astype(float)
        entries.append(
            {
                "label": label,
                "arm": part["arm"].iloc[0],
                "seeds": int(part["seed"].nunique()),
                **part[averaged].astype(float).mean().to_dict(),
                "reached": f"{int(reached.sum())} of {len(reached)}" if len(reached) else "–",
                "epochs_to_target": float(epochs.median()),
            }
        )
    return entries
