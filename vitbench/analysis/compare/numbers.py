"""Several results folders side by side: what differs, outcomes by setting, paired differences.

A setting is a combination of what varies within any of the folders, seeds apart; what differs only
between the folders is what is compared. The first folder is the reference: with the same setting
and seed in both, a difference is the other folder's value less the reference's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitbench.analysis import statistics
from vitbench.analysis.compare.differences import differences
from vitbench.analysis.report import verdict
from vitbench.analysis.results import Results, load
from vitbench.errors import UserError

METRICS = {
    "test_loss": "test loss",
    "val_loss": "validation loss",
    "test_accuracy": "test accuracy",
    "val_accuracy": "validation accuracy",
}
BEST = "best of each folder"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_OUTCOMES = (
    "setting", "folder", "trials", "seeds", "diverged", "val_loss", "val_loss_half",
    "test_loss", "test_loss_half", "test_accuracy", "test_accuracy_half",
)  # fmt: skip
_PAIRED = ("setting", "folder", "against", "pairs", "missing", "difference", "low", "high", "p",
           "correlation", "p_greater", "claim")  # fmt: skip
_PAIRS = ("setting", "folder", "against", "seed", "difference")


@dataclass(frozen=True)
class Side:
    """One folder: its letter, its results, and its trials that ended with `setting` and `loss`.

    `loss` is the validation loss at the last epoch, the loss before training where it diverged.
    """

    letter: str
    results: Results
    ended: pd.DataFrame

    @property
    def name(self) -> str:
        """The sweep and the run."""
        return f"{self.results.sweep['name']}/{self.results.folder.resolve().name}"

    @property
    def best(self) -> str | None:
        """The setting with the lowest mean loss; None where nothing ended."""
        means = self.ended.groupby("setting", sort=False)["loss"].mean()
        return str(means.idxmin()) if len(means) else None


@dataclass(frozen=True)
class Comparison:
    """Everything that the page and the terminal show.

    Attributes:
        sides: the folders, the reference first.
        names: settings that vary within some folder: together, they are a setting.
        metric: column that is paired, a key of METRICS.
        differences: what differs: `kind`, `what`, and a column of texts per letter.
        outcomes: one row per setting and folder that has it (_OUTCOMES), best settings first.
        paired: one row per other folder and setting with seeds in common (_PAIRED); first, where
            the best settings of two folders are not the same one, BEST.
        pairs: the differences of single seeds behind `paired` (_PAIRS).
        curves: mean train and test loss by `panel`, `folder`, `setting`, `split` and `epoch`.
        repeated: settings with several trials of one seed in a folder, which are not paired.
    """

    sides: list[Side]
    names: list[str]
    metric: str
    differences: pd.DataFrame
    outcomes: pd.DataFrame
    paired: pd.DataFrame
    pairs: pd.DataFrame
    curves: pd.DataFrame
    repeated: list[str]


def compare(folders: Sequence[Path]) -> Comparison:
    """Open the folders and compare all with the first.

    Raises:
        UserError: if a folder holds no results, stands twice, or shares no metric with another.
    """
    opened = _open(folders)
    metric = _common_metric(opened)
    names = list(dict.fromkeys(n for found in opened for n in verdict.arm_names(found.trials)))
    sides = []
    for letter, found in zip(_LETTERS, opened, strict=False):
        frame = verdict.ended(found.trials)
        labels = statistics.arm_labels(frame, names) if names else "the one setting"
        sides.append(Side(letter, found, frame.assign(setting=labels)))
    paired, pairs, repeated = _paired(sides, metric)
    outcomes = _outcomes(sides)
    return Comparison(
        sides=sides,
        names=names,
        metric=metric,
        differences=differences({side.letter: side.results for side in sides}),
        outcomes=outcomes,
        paired=paired,
        pairs=pairs,
        curves=_curves(sides, list(outcomes["setting"].unique())),
        repeated=repeated,
    )


def _open(folders: Sequence[Path]) -> list[Results]:
    if not 2 <= len(folders) <= len(_LETTERS):
        raise UserError(
            f"{len(folders)} results folder{'s' if len(folders) != 1 else ''}: a comparison needs "
            f"2 to {len(_LETTERS)}; name them all, the reference first"
        )
    seen: dict[Path, Path] = {}
    for folder in folders:
        where = folder.resolve()
        if where in seen:
            raise UserError(f"{folder}: stands twice ({seen[where]}); name each folder once")
        seen[where] = folder
    return [load(folder) for folder in folders]


def _common_metric(opened: Sequence[Results]) -> str:
    """The first metric that every folder measured on trials that ended."""
    for found in opened:
        if verdict.ended(found.trials).empty:
            raise UserError(
                f"{found.folder}: has no metric in common with the others: no trial has come to "
                f"its end yet; --resume the sweep, or leave the folder out"
            )
    tasks = [set(found.trials["label"].isna()) for found in opened]
    for found, task in zip(opened[1:], tasks[1:], strict=True):
        if not task & tasks[0]:
            one, other = ("all classes", "one label") if True in tasks[0] else (
                "one label", "all classes"
            )  # fmt: skip
            raise UserError(
                f"{found.folder}: has no metric in common with {opened[0].folder}: losses of "
                f"models of {other} against losses of models of {one}; compare sweeps of one task"
            )
    for metric in METRICS:
        if all(_finite(verdict.ended(found.trials)[metric]).any() for found in opened):
            return metric
    raise UserError(
        f"{', '.join(str(found.folder) for found in opened)}: have no metric in common (a finite "
        f"{', '.join(METRICS)}); name folders whose trials were evaluated"
    )


def _finite(values: pd.Series) -> pd.Series:
    return np.isfinite(values.astype(float))  # type: ignore[return-value]


def _outcomes(sides: Sequence[Side]) -> pd.DataFrame:
    """Means over seeds, with half a t interval from three seeds on."""
    rows = []
    for side in sides:
        for label, part in side.ended.groupby("setting", sort=False):
            row: dict[str, Any] = {"setting": label, "folder": side.letter, "trials": len(part)}
            row |= {"seeds": part["seed"].nunique()}
            row |= {"diverged": int((part["status"] == "diverged").sum())}
            for name, values in (
                ("val_loss", part["loss"]),
                ("test_loss", part["test_loss"]),
                ("test_accuracy", part["test_accuracy"]),
            ):
                known = values[_finite(values)]
                if len(known):
                    found = statistics.mean_interval(known.to_numpy(dtype=float))
                    row |= {name: found.mean, f"{name}_half": found.half}
            rows.append(row)
    table = pd.DataFrame(rows, columns=list(_OUTCOMES))
    order = table.groupby("setting", sort=False)["val_loss"].min()
    table["rank"] = table["setting"].map(order)
    table = table.sort_values(["rank", "setting", "folder"], kind="stable")
    return table.drop(columns="rank").reset_index(drop=True)


def _paired(sides: Sequence[Side], metric: str) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Every other folder against the first, by setting: (paired, pairs, repeated)."""
    repeated = sorted(
        {
            str(label)
            for side in sides
            for label, part in side.ended.groupby("setting", sort=False)
            if part["seed"].duplicated().any()
        }
    )
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    first = sides[0]
    order = list(first.ended.groupby("setting", sort=False)["loss"].mean().sort_values().index)
    for side in sides[1:]:
        theirs = set(side.ended["setting"])
        both = [(label, label, label) for label in order if label in theirs]
        if first.best and side.best and first.best != side.best:
            both.insert(0, (BEST, first.best, side.best))
        for label, reference, other in both:
            if reference in repeated or other in repeated:
                continue
            a, b = _by_seed(first, reference, metric), _by_seed(side, other, metric)
            seeds = [seed for seed in a if seed in b]
            ids = {"setting": label, "folder": side.letter, "against": first.letter}
            known = [seed for seed in seeds if math.isfinite(a[seed]) and math.isfinite(b[seed])]
            if not known:
                continue
            row = {**ids, **statistics.paired(b, a).row, "missing": len(seeds) - len(known)}
            if row["missing"]:
                row["claim"] = "none"  # the seeds that failed are the worst
            rows.append(row)
            pairs += [{**ids, "seed": seed, "difference": b[seed] - a[seed]} for seed in known]
    table = pd.DataFrame(rows, columns=list(_PAIRED))
    numeric = ["difference", "low", "high", "p", "correlation", "p_greater"]
    table[numeric] = table[numeric].astype(float)
    return table, pd.DataFrame(pairs, columns=list(_PAIRS)), repeated


def _by_seed(side: Side, label: str, metric: str) -> dict[int, float]:
    part = side.ended[side.ended["setting"] == label]
    values = part[metric].astype(float).fillna(math.nan)
    return dict(zip(part["seed"].astype(int), values, strict=True))


def _curves(sides: Sequence[Side], order: Sequence[str], most: int = 6) -> pd.DataFrame:
    """A panel per setting that several folders have, and one for the best of each."""
    having = {label: [s for s in sides if (s.ended["setting"] == label).any()] for label in order}
    panels = {label: [(s, label) for s in some] for label, some in having.items() if len(some) > 1}
    best = [(side, side.best) for side in sides if side.best]
    if not panels or len({label for _, label in best}) > 1:
        panels = {BEST: best, **panels}
    parts: list[pd.DataFrame] = []
    shown = 0
    for panel, members in panels.items():
        before = len(parts)
        for side, label in members:
            ids = side.ended.loc[side.ended["setting"] == label, "trial_id"]
            rows = side.results.epochs[side.results.epochs["trial_id"].isin(ids)]
            for split in ("train", "test"):
                grouped = rows.groupby("epoch")[f"{split}_loss"]
                part = grouped.agg(mean="mean", low="min", high="max", seeds="count").reset_index()
                named = {"panel": panel, "folder": side.letter, "setting": label, "split": split}
                if part["mean"].notna().any():  # all of them diverged in the first epoch
                    parts.append(part.assign(**named))
        shown += len(parts) > before
        if shown == most:
            break
    columns = ["panel", "folder", "setting", "split", "epoch", "mean", "low", "high", "seeds"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
