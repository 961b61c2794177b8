"""Findings on attention: its spread against the loss, and where models of a label look.

Does a wider attention go with a higher loss? Labels (or settings) are the units, not models:
models of one label differ in their seed alone and are not independent, and taking them as such
finds a direction in 44 % of sweeps in which there is none. So each unit is averaged over its
seeds, and the rank correlation of the units is tested by permuting them. Beside it stand what
share of the variance lies between units (the intraclass correlation ICC(1) of Shrout and Fleiss
1979, doi:10.1037/0033-2909.86.2.420) and the rank correlation within units.

Where it looks is a contrast of labels: the lift of a region in the models of a label less the mean
of the other labels' models of the same seed, on the same images. All labels and regions are one
family. Whether a single model looks somewhere more than chance explains is not asserted.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from vitbench.analysis.findings.arms import labels, named_trials, names_of
from vitbench.analysis.findings.claims import permutation_rho
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import (
    LEVEL,
    MIN_UNITS,
    Contrast,
    adjusted,
)
from vitbench.analysis.labels.numbers import choice_among
from vitbench.analysis.results import Results, computed_once

SPREAD_FAMILY = "attention spread"
REGIONS_FAMILY = "attention regions"
LIFT = "_lift"
WIDTH = "effective_patches"
LOSSES = {
    "train_loss": "training loss at the best epoch (nats)",
    "nce": "normalised cross entropy, test",
    "excess": "normalised cross entropy above the noise floor, test",
}


def findings(results: Results) -> list[Finding]:
    """What the attention of the trained models supports; empty where none was recorded."""
    data = spread_data(results)
    told = [] if data is None else associations(data)
    return told + looks(lifts(results))


def limits(results: Results) -> list[Finding]:
    """What the attention cannot tell."""
    told = []
    summary = results.folder / "attention" / "attention_summary.csv"
    if summary.is_file() and lifts(results).empty:
        told.append(Finding("limit_single_models"))
    silent = without_attention(results)
    if len(silent):
        names = [str(name) for name in silent["model"].unique()]
        told.append(Finding("limit_no_attention", n=len(names), facts={"models": names}))
    if len(spread := recorded_spread(results)):
        without = int((~compared(results)["trial_id"].isin(spread["trial_id"])).sum())
        if without:
            told.append(Finding("limit_without_map", n=without))
    return told


def without_attention(results: Results) -> pd.DataFrame:
    """The trials that were exported by their input gradients: their models show no attention."""
    path = results.folder / "attention" / "attention_summary.csv"
    if not path.is_file():
        return results.trials.head(0)
    summary = pd.read_csv(path, usecols=["trial_id", "method"])
    exported = summary.loc[summary["method"] == "input_gradient", "trial_id"]
    return results.trials[results.trials["trial_id"].isin(exported)]


def recorded_spread(results: Results) -> pd.DataFrame:
    """A row per model that was looked at; empty where none was."""
    path = results.folder / "attention" / "spread.csv"
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["trial_id"])


@computed_once
def compared(results: Results) -> pd.DataFrame:
    """Each label at the best of the arms whose models show attention; rows as of `chosen`.

    A CNN may have the lower loss, and has no map that could be compared.
    """
    trials = named_trials(results)
    mapped = trials["trial_id"].isin(recorded_spread(results)["trial_id"])
    return choice_among(results, set(trials.loc[mapped, "arm"])).rows


def spread_data(results: Results) -> pd.DataFrame | None:
    """A row per model: effective_patches, patches, and the losses of its best epoch.

    Further columns: `trial_id`, `seed`, `lr`, `group` and `unit`: where labels are compared, the
    label, with the models of each label's own best settings (`compared`); else the setting. None
    where no spread was recorded, or of fewer than three models.
    """
    spread = recorded_spread(results)
    if spread.empty:
        return None
    spread = spread[["trial_id", "effective_patches", "patches", "images"]]
    columns = ["trial_id", "best_epoch", "lr", "seed", "group", "unit"]
    trials = results.trials.assign(group=labels(results.trials, names_of(results)), unit="setting")
    scores = pd.DataFrame({"trial_id": trials["trial_id"], "nce": math.nan, "excess": math.nan})
    models = compared(results)
    if len(models) and (models["task"] == "one label").all():
        trials = trials[trials["trial_id"].isin(models["trial_id"])]
        trials = trials.assign(group=trials["label"], unit="label")
        scores = models[["trial_id", "nce", "excess"]]
    at_best = results.epochs[["trial_id", "epoch", "train_loss"]]
    at_best = at_best.rename(columns={"epoch": "best_epoch"}).astype({"train_loss": float})
    rows = spread.merge(trials[columns], on="trial_id")
    rows = rows.merge(at_best, on=["trial_id", "best_epoch"]).dropna(subset=["train_loss"])
    rows = rows.merge(scores.astype({"nce": float, "excess": float}), on="trial_id")
    return rows if len(rows) >= 3 else None


def losses_of(data: pd.DataFrame) -> list[str]:
    """The losses to compare: the paper's, and the one that corrects most of all."""
    clean = (data["excess"] == data["nce"]).all()  # no label is wrong, and there is no floor
    names = ("nce",) if clean else ("excess", "nce")
    corrected = [name for name in names if data[name].notna().all()]
    return ["train_loss", *corrected[:1]]


def associations(data: pd.DataFrame) -> list[Finding]:
    """A finding per loss (data: of `spread_data`); all are one family, corrected by Bonferroni."""
    losses = losses_of(data)
    return [_association(data, loss, len(losses)) for loss in losses]


def _association(data: pd.DataFrame, loss: str, family: int) -> Finding:
    rows = data.dropna(subset=[WIDTH, loss])
    means = rows.groupby("group", sort=False)[[WIDTH, loss]].mean()
    rho, p = permutation_rho(means[WIDTH].to_numpy(), means[loss].to_numpy())
    enough, adjusted = len(means) >= MIN_UNITS, min(1.0, p * family)
    return Finding(
        kind="spread_association",
        family=SPREAD_FAMILY,
        asserts=enough and adjusted < LEVEL,
        arms=tuple(map(str, means.index)),
        metric=loss,
        effect=rho if enough else None,
        p=p if enough else None,
        p_adjusted=adjusted if enough else None,
        n=len(means),
        facts={
            "loss": LOSSES[loss],
            "losses": family,
            "unit": str(data["unit"].iloc[0]),
            "models": len(rows),
            "needed": MIN_UNITS,
            "icc_width": intraclass(rows, WIDTH),
            "icc_loss": intraclass(rows, loss),
            "within": within_rho(rows, loss),
            "lr_varies": rows["lr"].nunique() > 1,
        },
    )


def intraclass(rows: pd.DataFrame, column: str) -> float:
    """ICC(1): share of the variance that lies between groups; NaN without two models in each.

    (MSB - MSW) / (MSB + (k - 1) MSW) with k the mean size of a group.
    """
    groups = rows.groupby("group")[column]
    counts, means = groups.count(), groups.mean()
    if len(counts) < 2 or counts.min() < 2:
        return math.nan
    within = ((rows[column] - groups.transform("mean")) ** 2).sum() / (len(rows) - len(counts))
    between = (counts * (means - rows[column].mean()) ** 2).sum() / (len(counts) - 1)
    total = between + (counts.mean() - 1) * within
    return float((between - within) / total) if total > 0 else math.nan


def within_rho(rows: pd.DataFrame, loss: str) -> float:
    """Spearman's rho of width and loss within groups: ranks of each, pooled; NaN below three."""
    rows = rows[rows.groupby("group")[loss].transform("count") >= 3]
    ranks = rows.groupby("group")[[WIDTH, loss]].rank()
    centred = ranks - ranks.groupby(rows["group"]).transform("mean")
    x, y = centred[[WIDTH, loss]].to_numpy(dtype=np.float64).T
    scale = math.sqrt((x**2).sum() * (y**2).sum())
    return float(x @ y) / scale if scale > 0 else math.nan


def lifts(results: Results) -> pd.DataFrame:
    """Lift of each region by model of the labels' chosen settings: `label`, `seed`, lifts.

    Empty where labels are not compared, or lifts were not recorded (by earlier versions).
    """
    spread = recorded_spread(results)
    regions = [name for name in spread.columns if name.endswith(LIFT)]
    models = compared(results) if regions else None
    if models is None or models.empty or (models["task"] != "one label").any():
        return pd.DataFrame(columns=["label", "seed"])
    rows = models[["trial_id", "label", "seed"]].merge(spread[["trial_id", *regions]])
    return rows.drop(columns="trial_id")


def looks(rows: pd.DataFrame) -> list[Finding]:
    """Each label and region whose lift differs from the other labels', and how many do not.

    Of the rows of `lifts`, only seeds that every label has count.
    """
    regions = [name for name in rows.columns if name.endswith(LIFT)]
    names = [str(name) for name in rows["label"].unique()]
    if not regions or len(names) < 2:
        return []
    tables = {
        region: rows.pivot(index="seed", columns="label", values=region) for region in regions
    }
    seeds = set.intersection(*(set(table.dropna().index) for table in tables.values()))
    contrasts = []
    for region, table in tables.items():
        values = table.loc[sorted(seeds), names].astype(float)
        # Of two labels the one's difference is the other's with its sign turned.
        for label in names if len(names) > 2 else names[:1]:
            others = values.drop(columns=label).mean(axis=1)
            d_S = (values[label] - others).to_numpy(dtype=np.float64)
            contrasts.append(Contrast(label, region, d_S))
    pairs = adjusted(contrasts) if len(seeds) > 1 else []
    told = []
    for pair, contrast in zip(pairs, contrasts, strict=False):
        if pair.told_apart:
            region = contrast.b.removesuffix(LIFT).replace("_", " ")
            facts = {"region": region, "contrasts": len(contrasts)}
            told.append(
                pair.assertion(
                    "label_looks", REGIONS_FAMILY, contrast.b, arms=(contrast.a,), facts=facts
                )
            )
    unclear = Finding(
        kind="looks_unclear",
        n=len(seeds),
        facts={"contrasts": len(contrasts), "unclear": len(contrasts) - len(told)},
    )
    return [*told, unclear]
