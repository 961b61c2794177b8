"""Several results folders side by side: what differs, outcomes by setting, paired differences.

A setting is a combination of what varies within any of the folders, seeds apart; what differs only
between the folders is what is compared. The first folder is the reference: with the same setting
and seed in both, a difference is the other folder's value less the reference's, with the loss
before training for a model that diverged. Losses of different labels are never compared: the label
is part of the setting wherever the folders hold several.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from vitbench.analysis.findings.arms import labels, names_of, standing_in
from vitbench.analysis.findings.pairs import Contrast, adjusted
from vitbench.analysis.findings.render import plural
from vitbench.analysis.learning_rate.figures import mean_curves
from vitbench.analysis.results import Results, load
from vitbench.analysis.statistics import mean_interval
from vitbench.config import AXES, Dataset, Model, Sweep, Train
from vitbench.errors import UserError

METRICS = {
    "test_loss": "test loss",
    "val_loss": "validation loss",
    "test_accuracy": "test accuracy",
    "val_accuracy": "validation accuracy",
}
BEST = "best of each folder"
_SECTIONS = {Dataset: "dataset", Model: "model", Train: "train"}
_IGNORED = ("description", "scales", "storage")  # words, and where files go
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MAX_PANELS = 6
_REPORTED = ("val_loss", "test_loss", "test_accuracy")
_OUTCOMES = ["setting", "folder", "trials", "seeds", "diverged"]
_OUTCOMES += [f"{name}{end}" for name in _REPORTED for end in ("", "_half")]
_KEYS = ["setting", "folder", "against"]
_PAIRED = [*_KEYS, "pairs", "difference", "low", "high", "p", "p_adjusted", "claim", "identical"]
_CURVES = ["panel", "folder", "setting", "split", "epoch", "mean", "low", "high", "seeds",
           "diverged"]  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One folder of a comparison."""

    letter: str
    results: Results
    # Trials that ended, with their `setting`; metrics at the last epoch, or before training where
    # a model diverged.
    ended: pd.DataFrame
    best: str | None  # setting of lowest mean validation loss; None where there are several labels

    @property
    def name(self) -> str:
        """The sweep and the run."""
        return f"{self.results.sweep['name']}/{self.results.folder.resolve().name}"


@dataclass(frozen=True)
class Comparison:
    """Everything that the page and the terminal show."""

    sides: list[Side]  # the reference first
    names: list[str]  # settings that vary within some folder: together, they are a setting
    metric: str  # column that is paired, a key of METRICS
    differences: pd.DataFrame  # what differs: `kind`, `what`, and a column of texts per letter
    outcomes: pd.DataFrame  # a row per setting and folder that has it (_OUTCOMES), the best first
    # A row per other folder and setting with seeds in common (_PAIRED), in the order of their
    # values, all corrected together; first, where the best settings of two folders are not the
    # same one, BEST. `identical`: no seed differs.
    paired: pd.DataFrame
    pairs: pd.DataFrame  # the differences of single seeds behind `paired`
    curves: pd.DataFrame  # mean train and test loss by `panel`, folder, setting, split and epoch
    repeated: list[str]  # settings with several trials of one seed in a folder: not paired


def compare(folders: Sequence[Path]) -> Comparison:
    """Open the folders and compare all with the first.

    Raises:
        UserError: if a folder holds no results, stands twice, or shares no metric with another.
    """
    opened = _open(folders)
    names = _varying(opened)
    sides = []
    for letter, results in zip(_LETTERS, opened, strict=False):
        ended = _ended(results, names)
        best = None if "label" in names else _lowest(ended)
        sides.append(Side(letter, results, ended, best))
    metric = _common_metric(sides)
    paired, pairs, repeated = _paired(sides, metric, names)
    outcomes = _outcomes(sides)
    differing = _differences({side.letter: side.results for side in sides})
    curves = _curves(sides, list(outcomes["setting"].unique()))
    return Comparison(sides, names, metric, differing, outcomes, paired, pairs, curves, repeated)


def _open(folders: Sequence[Path]) -> list[Results]:
    if not 2 <= len(folders) <= len(_LETTERS):
        raise UserError(
            f"{plural(len(folders), 'results folder')}: a comparison needs 2 to {len(_LETTERS)}; "
            f"name them all, the reference first"
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
        for results in opened
        for name in names_of(results)
        if results.trials[name].nunique(dropna=False) > 1
    ]
    if len({label for results in opened for label in results.trials["label"].fillna("")}) > 1:
        names.append("label")
    names = list(dict.fromkeys(names))
    for results in opened:
        missing = [name for name in names if name not in results.trials]
        if missing:
            raise UserError(
                f"{results.folder}: its tables have no column '{missing[0]}', in which another "
                f"folder varies; they were written by an older vitbench: leave the folder out"
            )
    return names


def _ended(results: Results, names: list[str]) -> pd.DataFrame:
    """Trials with an end of their own, with their setting in words.

    Raises:
        UserError: if there are none.
    """
    values = {metric: standing_in(results.trials, metric) for metric in METRICS}
    setting = labels(results.trials, names) if names else "the one setting"
    frame = results.trials.assign(**values, setting=setting).dropna(subset=["val_loss"])
    if frame.empty:
        raise UserError(
            f"{results.folder}: has no metric in common with the others: no trial has come to "
            f"its end yet; --resume the sweep, or leave the folder out"
        )
    return frame


def _lowest(ended: pd.DataFrame) -> str:
    """The setting of lowest mean validation loss, among those that lack no seed others have."""
    losses = ended.groupby("setting", sort=False)["val_loss"].agg(["mean", "count"])
    return str(losses.loc[losses["count"] == losses["count"].max(), "mean"].idxmin())


def _differences(folders: Mapping[str, Results]) -> pd.DataFrame:
    """What is not the same in all folders (results by the letter that they go by).

    Columns `kind` (setting, code, data, machine), `what`, and a text per letter.
    """
    facts: list[dict[tuple[str, str], str]] = []
    for results in folders.values():
        env = results.environment
        row = {
            ("setting", key): value
            for key, value in _settings(_with_defaults(results.sweep)).items()
        }
        row["setting", "scale"] = str(env.get("scale", "?"))
        commit = str(env.get("git_commit") or "not from a git checkout")
        row["code", "commit"] = commit + (" with uncommitted changes" * bool(env.get("git_dirty")))
        row |= {("code", name): str(env.get(name, "?")) for name in ("vitbench", "python")}
        row |= {("code", k): str(v) for k, v in (env.get("packages") or {}).items()}
        row["data", "images"] = str(env.get("image_source", results.dataset))
        row["data", "checksum"] = str(env.get("data_checksum", "?"))
        row["machine", "cpu"] = f"{env.get('cpu', '?')}, {env.get('cpus', '?')} CPUs"
        row["machine", "gpus"] = ", ".join(env.get("gpus") or []) or "none"
        if precision := env.get("decided", {}).get("precision"):
            row["machine", "precision"] = str(precision)
        facts.append(row)
    kinds = ("setting", "code", "data", "machine")
    keys = sorted(dict.fromkeys(k for row in facts for k in row), key=lambda k: kinds.index(k[0]))
    rows = [(*key, *(row.get(key, "–") for row in facts)) for key in keys]
    differing = [row for row in rows if len(set(row[2:])) > 1]
    return pd.DataFrame(differing, columns=["kind", "what", *folders])


def _with_defaults(sweep: Mapping[str, Any]) -> Mapping[str, Any]:
    """A resolved sweep with the settings that came after it was written, each at its default."""
    try:
        return Sweep.model_validate(sweep).model_dump(mode="json")
    except ValidationError:  # with words of an earlier version
        return sweep


def _settings(sweep: Mapping[str, Any]) -> dict[str, str]:
    """A sweep file by dotted key; a setting that is an axis has the values of its axis."""
    flat = _flat({k: v for k, v in sweep.items() if k not in _IGNORED})
    for axes in ("space", "inner"):
        for name, values in sweep["search"].get(axes, {}).items():
            axis = f"search.{axes}.{name}"
            for key in [k for k in flat if k == axis or k.startswith(f"{axis}.")]:
                del flat[key]
            only = values[0] if isinstance(values, list) and len(values) == 1 else values
            section = AXES.get(name)  # axes of one model, and arguments, go by their own names
            flat[f"{_SECTIONS[section]}.{name}" if section else name] = _text(only)
    return flat


def _text(value: Any) -> str:
    if isinstance(value, Mapping):  # a range; what it leaves out is false or missing
        value = {k: v for k, v in value.items() if v}
    return value if isinstance(value, str) else json.dumps(value)


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Values of a tree by dotted key, as text."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[above + key] = _text(value)
    return flat


def _common_metric(sides: Sequence[Side]) -> str:
    """The first metric that every folder measured on trials that ended.

    Raises:
        UserError: if the folders share no task, or no metric.
    """
    tasks = [set(side.ended["label"].isna()) for side in sides]
    for side, task in zip(sides, tasks, strict=True):
        if not task & tasks[0]:
            words = ("all classes", "one label")
            one, other = words if True in tasks[0] else words[::-1]
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
            row |= {"seeds": part["seed"].nunique(), "diverged": sum(part["status"] == "diverged")}
            for name in _REPORTED:
                if part[name].notna().any():
                    mean = mean_interval(part[name].to_numpy(dtype=float))
                    row |= {name: mean.mean, f"{name}_half": mean.ends[1] - mean.mean}
            rows.append(row)
    table = pd.DataFrame(rows, columns=_OUTCOMES)
    table["rank"] = table.groupby("setting")["val_loss"].transform("min")
    table = table.sort_values(["rank", "setting", "folder"], kind="stable", ignore_index=True)
    return table.drop(columns="rank")


def _paired(
    sides: Sequence[Side], metric: str, names: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Every other folder against the first, by setting: (paired, pairs, repeated)."""
    twice = [side.ended[side.ended.duplicated(["setting", "seed"])] for side in sides]
    repeated = sorted({str(label) for rows in twice for label in rows["setting"]})
    first, *others = sides
    by_letter = {
        side.letter: side.ended.dropna(subset=[metric]).set_index("seed") for side in sides
    }
    keys: list[tuple[str, str, str]] = []
    contrasts: list[Contrast] = []
    for side in others:
        theirs = set(side.ended["setting"])
        ours = first.ended.sort_values(names, kind="stable") if names else first.ended
        both = [(label, label, label) for label in ours["setting"].unique() if label in theirs]
        if first.best and side.best and first.best != side.best:
            both.insert(0, (BEST, first.best, side.best))
        for label, reference, other in both:
            if reference in repeated or other in repeated:
                continue
            a, b = by_letter[first.letter], by_letter[side.letter]
            a, b = a[a["setting"] == reference], b[b["setting"] == other]
            common = [seed for seed in a.index if seed in b.index]
            if common:
                d_S = (b.loc[common, metric] - a.loc[common, metric]).to_numpy(dtype=float)
                contrasts.append(Contrast(side.letter, first.letter, d_S, tuple(map(int, common))))
                keys.append((label, side.letter, first.letter))
    rows: list[tuple[Any, ...]] = []
    seeds: list[tuple[Any, ...]] = []
    for key, contrast, pair in zip(keys, contrasts, adjusted(contrasts), strict=True):
        seeds += [(*key, *one) for one in zip(contrast.seeds, contrast.d_S.tolist(), strict=True)]
        d = pair.difference
        way = "greater" if d.mean > 0 else "less"
        # The best of each were picked on these very seeds.
        claim = way if pair.told_apart and key[0] != BEST else "none"
        identical = not contrast.d_S.any()
        rows.append((*key, d.n, d.mean, *d.ends, pair.p, pair.p_adjusted, claim, identical))
    pairs = pd.DataFrame(seeds, columns=[*_KEYS, "seed", "difference"])
    return pd.DataFrame(rows, columns=_PAIRED), pairs, repeated


def _curves(sides: Sequence[Side], order: Sequence[str]) -> pd.DataFrame:
    """A panel per setting that several folders have, and one for the best of each."""
    having = {label: [s for s in sides if (s.ended["setting"] == label).any()] for label in order}
    panels = {label: [(s, label) for s in some] for label, some in having.items() if len(some) > 1}
    best = [(side, side.best) for side in sides if side.best]
    if best and (not panels or len({label for _, label in best}) > 1):
        panels = {BEST: best, **panels}
    parts = []
    for panel, members in list(panels.items())[:_MAX_PANELS]:
        for side, label in members:
            trials = side.ended[side.ended["setting"] == label]
            part = mean_curves(side.results.epochs, trials, [])
            parts.append(part.assign(panel=panel, folder=side.letter, setting=label))
    return pd.concat(parts, ignore_index=True)[_CURVES] if parts else pd.DataFrame(columns=_CURVES)
