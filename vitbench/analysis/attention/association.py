"""Does a wider attention go with a higher loss? Labels (or settings) are the units, not models.

Models of one label differ in their seed alone and are not independent: taking them as such finds
a direction in 44 % of sweeps in which there is none. So each unit is averaged over its seeds, and
the rank correlation of the units is tested by permuting them. Beside it stand what share of the
variance lies between units (the intraclass correlation ICC(1) of Shrout and Fleiss 1979,
doi:10.1037/0033-2909.86.2.420) and the rank correlation within units.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from vitbench.analysis.findings.arms import labels, names_of
from vitbench.analysis.findings.claims import MIN_UNITS, permutation_rho
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import LEVEL
from vitbench.analysis.labels import numbers
from vitbench.analysis.results import Results

FAMILY = "attention spread"
WIDTH = "effective_patches"
LOSSES = {
    "train_loss": "training loss at the best epoch (nats)",
    "nce": "normalised cross entropy, test",
    "excess": "normalised cross entropy above the noise floor, test",
}


def spread_data(results: Results) -> pd.DataFrame | None:
    """A row per model: effective_patches, patches, and the losses of its best epoch.

    Further columns: `trial_id`, `seed`, `lr`, `group` and `unit`: where labels are compared, the
    label, with the models of each label's own best settings; else the setting. None where no
    spread was recorded, or of fewer than three models.
    """
    path = results.folder / "attention" / "spread.csv"
    if not path.is_file():
        return None
    spread = pd.read_csv(path)[["trial_id", "effective_patches", "patches", "images"]]
    columns = ["trial_id", "best_epoch", "lr", "seed", "group", "unit"]
    trials = results.trials.assign(group=labels(results.trials, names_of(results)), unit="setting")
    scores = pd.DataFrame({"trial_id": trials["trial_id"], "nce": math.nan, "excess": math.nan})
    compared = numbers.chosen(results)
    if len(compared) and (compared["task"] == "one label").all():
        trials = trials[trials["trial_id"].isin(compared["trial_id"])]
        trials = trials.assign(group=trials["label"], unit="label")
        scores = compared[["trial_id", "nce", "excess"]]
    at_best = results.epochs[["trial_id", "epoch", "train_loss"]]
    at_best = at_best.rename(columns={"epoch": "best_epoch"}).astype({"train_loss": float})
    rows = spread.merge(trials[columns], on="trial_id")
    rows = rows.merge(at_best, on=["trial_id", "best_epoch"]).dropna(subset=["train_loss"])
    rows = rows.merge(scores.astype({"nce": float, "excess": float}), on="trial_id")
    return rows if len(rows) >= 3 else None


def losses_of(data: pd.DataFrame) -> list[str]:
    """The losses to compare: the paper's, and the one that corrects most of all."""
    corrected = [name for name in ("excess", "nce") if data[name].notna().all()]
    return ["train_loss", *corrected[:1]]


def associations(data: pd.DataFrame) -> list[Finding]:
    """A finding per loss; all are one family, corrected by Bonferroni.

    Args:
        data: of `spread_data`: a row per model with `group`, `unit` ("label" or
            "setting"), `lr`, effective_patches and losses.
    """
    losses = losses_of(data)
    return [_association(data, loss, len(losses)) for loss in losses]


def _association(data: pd.DataFrame, loss: str, family: int) -> Finding:
    rows = data.dropna(subset=[WIDTH, loss])
    means = rows.groupby("group", sort=False)[[WIDTH, loss]].mean()
    rho, p = permutation_rho(means[WIDTH].to_numpy(), means[loss].to_numpy())
    enough, adjusted = len(means) >= MIN_UNITS, min(1.0, p * family)
    return Finding(
        kind="spread_association",
        family=FAMILY,
        asserts=enough and adjusted < LEVEL,
        arms=tuple(map(str, means.index)),
        metric=loss,
        effect=rho if enough else None,
        p=p if enough else None,
        p_adjusted=adjusted if enough else None,
        n=len(means),
        facts={
            "loss": LOSSES[loss],
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
