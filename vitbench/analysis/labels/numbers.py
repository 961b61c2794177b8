"""Which labels are harder: raw losses, losses corrected for base rates, and their orders.

Each label is taken at its own learning rate (and other settings): that of lowest mean validation
loss over seeds, so that no label is judged at a rate that suits another. Seeds are pairs. What
the measures mean is said in records.rows.LABELS; all follow the methods named in records.labels.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vitbench.analysis import statistics
from vitbench.analysis.findings import arms
from vitbench.analysis.results import Results, computed_once

HEADLINE = "nce"
# Settings beside label and seed in which arms of one label may differ.
_SETTINGS = ("lr", "weight_decay", "patch_grid", "depth", "heads", "width", "batch_size",
             "optimizer")  # fmt: skip


@dataclass(frozen=True)
class Measure:
    """A measure of difficulty: its column, its name, and whether less means an easier label."""

    column: str
    title: str
    less_is_easier: bool


MEASURES = (
    Measure("train_loss", "training loss (the paper's measure)", True),
    Measure("nce", "normalised cross entropy, test", True),
    Measure("ap_norm", "average precision above chance, test", False),
    Measure("roc_auc", "ROC-AUC, test", False),
    Measure("mcc", "Matthews correlation, test", False),
    Measure("alc", "information gained, mean over epochs", False),
)


@computed_once
def chosen(results: Results) -> pd.DataFrame:
    """Rows of the labels table at each label's own best settings, with `arm` naming them.

    Empty unless at least two labels have been learned in the same way (`task`), so that there is
    something to compare. Models that diverged are left out.
    """
    rows = results.labels
    if rows.empty:
        return rows.copy()
    loss = results.trials.set_index("trial_id")["best_val_loss"].astype(float)
    rows = rows.assign(val_loss=rows["trial_id"].map(loss)).dropna(subset=["val_loss"])
    if len(rows):
        rows = rows[rows["task"] == rows["task"].iloc[0]]
    if rows["label"].nunique() < 2:
        return rows.iloc[:0]
    names = [name for name in _SETTINGS if rows[name].nunique(dropna=False) > 1]
    rows = rows.assign(arm=arms.labels(rows, names) if names else "")
    parts = []
    for _, part in rows.groupby("label", sort=False):
        means = part.groupby("arm", sort=False)["val_loss"].mean()
        best = part[part["arm"] == means.idxmin()]
        parts.append(best.drop_duplicates("seed", keep="last"))
    return pd.concat(parts, ignore_index=True)


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
            means.append(
                {
                    "label": label,
                    "measure": measure.column,
                    "title": measure.title,
                    "mean": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "seeds": interval.n,
                }
            )
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


def pairs(rows: pd.DataFrame, measure: str = HEADLINE) -> pd.DataFrame:
    """Every label against every other, seed by seed: statistics.PAIRED_COLUMNS.

    `arm` is the harder one of a pair by its mean, so `difference` is not negative where the
    measure is a loss.
    """
    by_seed = {
        str(label): {
            int(seed): float(value)
            for seed, value in zip(part["seed"], part[measure].astype(float), strict=True)
            if math.isfinite(value)
        }
        for label, part in rows.groupby("label", sort=False)
    }
    found = []
    for one, other in itertools.combinations(by_seed, 2):
        if not set(by_seed[one]) & set(by_seed[other]):
            continue
        result = statistics.paired(by_seed[one], by_seed[other])
        if result.difference.mean < 0:
            one, other = other, one
            result = statistics.paired(by_seed[one], by_seed[other])
        found.append({"arm": one, "against": other, "missing": 0, **result.row})
    return pd.DataFrame(found, columns=list(statistics.PAIRED_COLUMNS))


def table(results: Results) -> list[dict[str, object]]:
    """Rows for the report: a label each, the easiest by the headline measure first."""
    rows = chosen(results)
    if rows.empty:
        return []
    measures = summary(rows)
    found = []
    for label in order(measures, HEADLINE):
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
                        "balanced_accuracy", "test_accuracy", "majority_rate",
                    )
                },
                **{m.column: means.get(m.column, math.nan) for m in MEASURES},
                "reached": f"{int(reached.sum())} of {len(reached)}" if len(reached) else "–",
                "epochs_to_target": float(epochs.median()) if len(epochs) else math.nan,
            }
        )  # fmt: skip
    return found
