"""Several results folders side by side: what differs, outcomes by setting, paired differences.

A setting is a combination of what varies within any of the folders, seeds apart; what differs only
between the folders is what is compared. The first folder is the reference: with the same setting
and seed in both, a difference is the other folder's value less the reference's, with the loss
before training for a model that diverged. Losses of different labels are never compared: the label
is part of the setting wherever the folders hold several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitbench.analysis.compare.differences import differences
from vitbench.analysis.findings.arms import labels, names_of, standing_in
from vitbench.analysis.findings.pairs import Contrast, adjusted
from vitbench.analysis.learning_rate.curves import mean_curves
from vitbench.analysis.results import Results, load
from vitbench.analysis.statistics import mean_interval
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
_PAIRED = ("setting", "folder", "against", "pairs", "difference", "low", "high", "p", "p_adjusted",
           "claim")  # fmt: skip
_PAIRS = ("setting", "folder", "against", "seed", "difference")


@dataclass(frozen=True)
class Side:
    """One folder: its letter, its results, and its trials that ended, with their `setting`.

    Metrics are those at the last epoch, or before training where a model diverged. `best` is the
    setting of lowest mean validation loss; None where the folders hold several labels.
    """

    letter: str
    results: Results
    ended: pd.DataFrame
    best: str | None

    @property
    def name(self) -> str:
        """The sweep and the run."""
        return f"{self.results.sweep['name']}/{self.results.folder.resolve().name}"


@dataclass(frozen=True)
class Comparison:
    """Everything that the page and the terminal show.

    Attributes:
        sides: the folders, the reference first.
        names: settings that vary within some folder: together, they are a setting.
        metric: column that is paired, a key of METRICS.
        differences: what differs: `kind`, `what`, and a column of texts per letter.
        outcomes: one row per setting and folder that has it (_OUTCOMES), best settings first.
        paired: one row per other folder and setting with seeds in common (_PAIRED), all of them
            corrected together; first, where the best settings of two folders are not the same
            one, BEST.
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
    names = _varying(opened)
    sides = []
    for letter, found in zip(_LETTERS, opened, strict=False):
        ended = _ended(found, names)
        means = ended.groupby("setting", sort=False)["val_loss"].mean()
        best = None if "label" in names else str(means.idxmin())
        sides.append(Side(letter, found, ended, best))
    metric = _common_metric(sides)
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


def _varying(opened: Sequence[Results]) -> list[str]:
    """Settings with several values in some folder; the label also where folders differ in it."""
    names = [
        name
        for found in opened
        for name in names_of(found)
        if found.trials[name].nunique(dropna=False) > 1
    ]
    learned = {label for found in opened for label in found.trials["label"].fillna("").unique()}
    names = list(dict.fromkeys([*names, *(["label"] if len(learned) > 1 else [])]))
    for found in opened:
        missing = [name for name in names if name not in found.trials]
        if missing:
            raise UserError(
                f"{found.folder}: its tables have no column '{missing[0]}', in which another "
                f"folder varies; they were written by an older vitbench: leave the folder out"
            )
    return names


def _ended(found: Results, names: list[str]) -> pd.DataFrame:
    """Trials with an end of their own, with their setting in words.

    Raises:
        UserError: if there are none.
    """
    values = {metric: standing_in(found.trials, metric) for metric in METRICS}
    setting = labels(found.trials, names) if names else "the one setting"
    frame = found.trials.assign(**values, setting=setting).dropna(subset=["val_loss"])
    if frame.empty:
        raise UserError(
            f"{found.folder}: has no metric in common with the others: no trial has come to "
            f"its end yet; --resume the sweep, or leave the folder out"
        )
    return frame


def _common_metric(sides: Sequence[Side]) -> str:
    """The first metric that every folder measured on trials that ended.

    Raises:
        UserError: if the folders share no task, or no metric.
    """
    tasks = [set(side.ended["label"].isna()) for side in sides]
    for side, task in zip(sides[1:], tasks[1:], strict=True):
        if not task & tasks[0]:
            one, other = ("all classes", "one label") if True in tasks[0] else (
                "one label", "all classes"
            )  # fmt: skip
            raise UserError(
                f"{side.results.folder}: has no metric in common with {sides[0].results.folder}: "
                f"losses of models of {other} against losses of models of {one}; compare sweeps "
                f"of one task"
            )
    for metric in METRICS:
        if all(side.ended[metric].notna().any() for side in sides):
            return metric
    raise UserError(
        f"{', '.join(str(side.results.folder) for side in sides)}: have no metric in common (a "
        f"finite {', '.join(METRICS)}); name folders whose trials were evaluated"
    )


def _outcomes(sides: Sequence[Side]) -> pd.DataFrame:
    """Means over seeds, with half a t interval from three seeds on."""
    rows = []
    for side in sides:
        for label, part in side.ended.groupby("setting", sort=False):
            row: dict[str, Any] = {"setting": label, "folder": side.letter, "trials": len(part)}
            row |= {"seeds": part["seed"].nunique()}
            row |= {"diverged": int((part["status"] == "diverged").sum())}
            for name in ("val_loss", "test_loss", "test_accuracy"):
                if part[name].notna().any():
                    found = mean_interval(part[name].to_numpy(dtype=float))
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
    contrasts: list[Contrast] = []
    first = sides[0]
    order = list(first.ended.groupby("setting", sort=False)["val_loss"].mean().sort_values().index)
    for side in sides[1:]:
        theirs = set(side.ended["setting"])
        both = [(label, label, label) for label in order if label in theirs]
        if first.best and side.best and first.best != side.best:
            both.insert(0, (BEST, first.best, side.best))
        for label, reference, other in both:
            if reference in repeated or other in repeated:
                continue
            a, b = _by_seed(first, reference, metric), _by_seed(side, other, metric)
            seeds = tuple(seed for seed in a if seed in b)
            if not seeds:
                continue
            d_S = np.array([b[seed] - a[seed] for seed in seeds])
            contrasts.append(Contrast(side.letter, first.letter, d_S, seeds))
            rows.append({"setting": label, "folder": side.letter, "against": first.letter})
    pairs = [
        {**row, "seed": seed, "difference": float(d)}
        for row, contrast in zip(rows, contrasts, strict=True)
        for seed, d in zip(contrast.seeds, contrast.d_S, strict=True)
    ]
    for row, pair in zip(rows, adjusted(contrasts), strict=True):
        way = "greater" if pair.difference.mean > 0 else "less"
        row |= {
            "pairs": pair.difference.n,
            "difference": pair.difference.mean,
            "low": pair.difference.low,
            "high": pair.difference.high,
            "p": pair.p,
            "p_adjusted": pair.p_adjusted,
            "claim": way if pair.told_apart else "none",
        }
    table = pd.DataFrame(rows, columns=list(_PAIRED))
    numeric = ["difference", "low", "high", "p", "p_adjusted"]
    table[numeric] = table[numeric].astype(float)
    return table, pd.DataFrame(pairs, columns=list(_PAIRS)), repeated


def _by_seed(side: Side, label: str, metric: str) -> dict[int, float]:
    part = side.ended[side.ended["setting"] == label].dropna(subset=[metric])
    return dict(zip(part["seed"].astype(int), part[metric].astype(float), strict=True))


def _curves(sides: Sequence[Side], order: Sequence[str], most: int = 6) -> pd.DataFrame:
    """A panel per setting that several folders have, and one for the best of each."""
    having = {label: [s for s in sides if (s.ended["setting"] == label).any()] for label in order}
    panels = {label: [(s, label) for s in some] for label, some in having.items() if len(some) > 1}
    best = [(side, side.best) for side in sides if side.best]
    if best and (not panels or len({label for _, label in best}) > 1):
        panels = {BEST: best, **panels}
    parts: list[pd.DataFrame] = []
    shown = 0
    for panel, members in panels.items():
        before = len(parts)
        for side, label in members:
            trials = side.ended[side.ended["setting"] == label]
            part = mean_curves(side.results.epochs, trials, [])
            parts.append(part.assign(panel=panel, folder=side.letter, setting=label))
        shown += len(parts) > before
        if shown == most:
            break
    columns = ["panel", "folder", "setting", "split", "epoch", "mean", "low", "high", "seeds",
               "diverged"]  # fmt: skip
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
