"""Which labels are harder: raw losses, losses corrected for base rates, and their orders.

Each label is taken at its own learning rate (and other settings): that of lowest mean validation
loss over seeds, so that no label is judged at a rate that suits another. What a model scores that
learned nothing stands in for models that diverged; arms that lack seeds are not chosen. Seeds are
pairs. The measures are described in records.rows.LABELS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vitbench.analysis import statistics
from vitbench.analysis.findings.arms import by_arm, labels, names_of
from vitbench.analysis.findings.pairs import Pair, all_pairs
from vitbench.analysis.results import Results, computed_once
from vitbench.records.labels import entropy, excess, noise_floor

_CHOOSE_BY = "best_val_loss"


@dataclass(frozen=True)
class Measure:
    """A measure of difficulty: its column, its name, and whether less means an easier label."""

    column: str
    title: str
    less_is_easier: bool


RAW = Measure("train_loss", "training loss (the paper's measure)", True)
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
    """The labels at their best settings.

    Attributes:
        rows: of the labels table, a row per label and seed, with `arm` (the settings chosen) and
            `train_loss_over_constant`. Empty unless there are two labels to compare.
        incomplete: labels without any arm that has all seeds.
        diverged: label -> models of the chosen arm that diverged.
    """

    rows: pd.DataFrame
    incomplete: tuple[str, ...] = ()
    diverged: dict[str, int] | None = None


@computed_once
def choice(results: Results) -> Choice:
    """Each label at the complete arm of lowest mean validation loss."""
    table = results.labels
    asked = results.trials["label"].dropna().nunique()
    if table.empty or max(asked, table["label"].nunique()) < 2:
        return Choice(table.iloc[:0].copy())
    names = [name for name in names_of(results) if name != "label"]
    arms = by_arm(results, _CHOOSE_BY)
    trials = results.trials.assign(arm=labels(results.trials, names_of(results)))
    trials = trials[trials["arm"].isin(arms.values.columns)]
    means = arms.values.mean()
    parts, incomplete, diverged = [], [], {}
    alone = asked > 1
    wanted = results.trials["label"].dropna().unique() if alone else table["label"].unique()
    for label in wanted:
        of_label = trials[trials["label"] == label] if alone else trials
        if of_label.empty:
            incomplete.append(str(label))
            continue
        best = means[of_label["arm"].unique()].idxmin()
        models = of_label[of_label["arm"] == best]
        part = _rows(models, table[table["label"] == label], str(label))
        shown = labels(models, names) if names else pd.Series("", index=models.index)
        parts.append(part.assign(arm=shown.iloc[0]))
        if gone := int((models["status"] == "diverged").sum()):
            diverged[str(label)] = gone
    if len(parts) < 2:
        return Choice(table.iloc[:0].copy(), tuple(incomplete), diverged)
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
    rates = [f"{split}_base_rate" for split in ("train", "val", "test")]
    shared = [*rates, "task", "constant_bce", "majority_rate", "label_noise", "observed_rate"]
    for column in (name for name in (*shared, "floor") if name in part):
        first = of_label[column].dropna()
        if len(first):
            part[column] = part[column].fillna(first.iloc[0])
    start = pd.Series(models["initial_val_loss"].astype(float).to_numpy())
    before = (start / part["constant_bce"].astype(float)).fillna(1.0)
    for column, value in _NOTHING_LEARNED.items():
        part.loc[gone, column] = value
    part["nce"] = part["nce"].astype(float).where(~gone, before)
    part["rig"] = 1.0 - part["nce"]
    part["test_bce"] = part["test_bce"].astype(float).where(~gone, start)
    part["train_loss"] = part["train_loss"].astype(float).where(~gone, start)
    return part


def _scored(rows: pd.DataFrame, results: Results) -> pd.DataFrame:
    """With columns that the labels table lacks, or lacked in earlier versions."""
    constant = rows["train_base_rate"].astype(float).map(_entropy)
    raw = rows["train_loss"].astype(float)
    floor, rate = (
        rows.get(name, pd.Series(math.nan, index=rows.index)).astype(float)
        for name in ("floor", "observed_rate")
    )
    noise = results.environment.get("label_noise")
    if noise is not None:
        older = [_rate(row, float(noise), results.dataset) for row in rows.to_dict("records")]
        rate = rate.fillna(pd.Series(older, index=rows.index))
        shares = rows["test_base_rate"].astype(float)
        known = [_floor(w, p, float(noise)) for w, p in zip(shares, rate, strict=True)]
        floor = floor.fillna(pd.Series(known, index=rows.index))
    return rows.assign(
        train_loss_over_constant=raw / constant,
        observed_rate=rate,
        floor=floor,
        excess=[excess(*pair) for pair in zip(rows["nce"].astype(float), floor, strict=True)],
    )


def _entropy(p: float) -> float:
    return entropy(p) or math.nan


def _rate(row: dict[Any, Any], noise: float, dataset: str) -> float:
    """The rate of a label before matching where it was not recorded; NaN where it is not known."""
    if pd.isna(row["matched"]):
        return float(row["test_base_rate"])
    from vitbench.data.faces.faces import (  # numpy's random drawing: slow to import
        BASE_RATES,
        NOISE,
    )

    documented = dataset == "faces" and noise == NOISE
    return BASE_RATES.get(str(row["label"]), math.nan) if documented else math.nan


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
    found = []
    for measure in MEASURES:
        means: list[dict[str, Any]] = []
        for label, part in rows.groupby("label", sort=False):
            values = part[measure.column].astype(float).dropna()
            if values.empty:
                continue
            interval = statistics.mean_interval(values.to_numpy())
            low, high = interval.low, interval.high
            means.append(
                {"label": label, "measure": measure.column, "title": measure.title,
                 "mean": interval.mean, "low": low, "high": high, "seeds": interval.n}
            )  # fmt: skip
        means.sort(key=_mean, reverse=not measure.less_is_easier)
        found += [{**row, "rank": place} for place, row in enumerate(means, 1)]
    table = pd.DataFrame(found)
    order = {label: n for n, label in enumerate(rows["label"].unique())}
    return table.sort_values(
        ["measure", "label"],
        key=lambda column: column.map(order) if column.name == "label" else column,
        kind="stable",
    ).reset_index(drop=True)


def _mean(row: dict[str, Any]) -> float:
    return float(row["mean"])


def order(table: pd.DataFrame, measure: str) -> list[str]:
    """Labels from the easiest to the hardest by a measure of `summary`."""
    part = table[table["measure"] == measure].sort_values("rank")
    return [str(label) for label in part["label"]]


def agreement(table: pd.DataFrame, one: str, other: str) -> float:
    """Kendall's tau between the orders by two measures; NaN below two labels."""
    first, second = order(table, one), order(table, other)
    both = [label for label in first if label in second]
    if len(both) < 2:
        return math.nan
    places = [[o.index(label) for label in both] for o in (first, second)]
    from scipy.stats import kendalltau  # slow to import

    return float(kendalltau(*places).statistic)


def by_seed(rows: pd.DataFrame, measure: Measure) -> pd.DataFrame | None:
    """A measure of every label (columns) by seed (rows), more being harder; None with gaps."""
    values = rows.pivot(index="seed", columns="label", values=measure.column).astype(float)
    values = values[list(rows["label"].unique())]
    if values.isna().to_numpy().any():
        return None
    return values if measure.less_is_easier else -values


def pairs(rows: pd.DataFrame) -> list[Pair]:
    """Every label against every other by the headline measure, all pairs corrected together."""
    values = by_seed(rows, headline(rows))
    return [] if values is None or len(values) < 2 else all_pairs(values)


def table(results: Results) -> list[dict[str, object]]:
    """Rows for the report: a label each, the easiest by the headline measure first."""
    rows = chosen(results)
    if rows.empty:
        return []
    measures = summary(rows)
    found = []
    for label in order(measures, headline(rows).column):
        of_label = measures[measures["label"] == label]
        means = dict(zip(of_label["measure"], of_label["mean"].astype(float), strict=True))
        part = rows[rows["label"] == label]
        reached = part["reached"].dropna()
        epochs = part["epochs_to_target"].dropna().astype(float)
        found.append(
            {
                "label": label,
                "arm": part["arm"].iloc[0],
                "seeds": int(part["seed"].nunique()),
                **{
                    name: float(part[name].astype(float).mean())
                    for name in (
                        "train_base_rate", "test_base_rate", "constant_bce", "test_bce", "rig",
                        "balanced_accuracy", "test_accuracy", "majority_rate", "floor",
                    )
                },
                **{m.column: means.get(m.column, math.nan) for m in MEASURES},
                "reached": f"{int(reached.sum())} of {len(reached)}" if len(reached) else "–",
                "epochs_to_target": float(epochs.median()) if len(epochs) else math.nan,
            }
        )  # fmt: skip
    return found
