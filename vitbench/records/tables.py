"""Tables from the ledger: trials, epochs and labels, as parquet and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vitbench.config.search import OBJECTIVES
from vitbench.records import ledger
from vitbench.records.files import replacing
from vitbench.records.labels import label_row
from vitbench.records.rows import EPOCHS, LABELS, TRIALS, Column
from vitbench.records.types import Status, TrialOutcome

LEDGER = "ledger.jsonl"
_PART = 20_000


def build(results_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build two tables from the ledger: (trials, epochs).

    A trial is keyed by its id, an epoch's row by trial and epoch; the last line wins, so what a
    resumed run repeats replaces what it repeats. Trials are in the order in which they were
    planned, epochs in the order of trials and time. A trial without an outcome is `running`, or
    `planned` while it has no epoch either.
    """
    trials, epochs = _read(results_dir)
    return _frame(trials, TRIALS), epochs


def build_all(results_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Build (trials, epochs, labels); labels have no row where models learned classes."""
    trials, epochs = _read(results_dir)
    return _frame(trials, TRIALS), epochs, _labels(trials, epochs)


def no_labels() -> pd.DataFrame:
    """The table of labels of a sweep whose models learned classes."""
    return _frame([], LABELS)


def _read(results_dir: Path) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Rows of trials and the table of epochs, in the order that `build` promises."""
    trials: dict[str, dict[str, Any]] = {}
    parts: list[pd.DataFrame] = []
    rows: list[dict[str, Any]] = []
    for line in ledger.read(results_dir / LEDGER):
        kind = line.pop("kind")
        line.pop("time_s", None)
        if kind == "trial":  # again after a resume: its end from before does not stand
            planned = planned_row(line["config"])
            ids = {"trial_id": line["trial_id"], "stack_id": line["stack_id"]}
            trials[line["trial_id"]] = {**planned, **ids, "status": Status.PLANNED.value}
        elif kind == "outcome":
            trials.setdefault(line["trial_id"], {}).update(line)
        elif kind == "epoch":
            rows.append(line)
            if len(rows) == _PART:  # columns take a tenth of the memory of dicts
                parts.append(_frame(rows, EPOCHS))
                rows.clear()
    epochs = pd.concat([*parts, _frame(rows, EPOCHS)], ignore_index=True)
    epochs = epochs.drop_duplicates(["trial_id", "epoch"], keep="last")
    ids = pd.Index(epochs["trial_id"].astype("object"))
    place = pd.Index(list(trials), dtype="object").get_indexer(ids)  # -1: was never planned
    epochs = epochs.assign(_place=place).sort_values(
        ["_place", "epoch"], kind="stable", ignore_index=True
    )
    epochs = epochs.drop(columns="_place")
    _fill_running(trials, epochs)
    return list(trials.values()), epochs


def _labels(trials: Sequence[dict[str, Any]], epochs: pd.DataFrame) -> pd.DataFrame:
    asked = [TrialOutcome.from_json(trial) for trial in trials if trial.get("labels")]
    alone = [outcome.trial_id for outcome in asked if outcome.label is not None]
    curves = {
        str(trial_id): list(zip(part["epoch"].tolist(), part["val_loss"].tolist(), strict=True))
        for trial_id, part in epochs[epochs["trial_id"].isin(alone)].groupby("trial_id")
    }
    rows = [
        label_row(outcome, score, curves.get(outcome.trial_id, [])).to_json()
        for outcome in asked
        for score in outcome.labels
    ]
    return _frame(rows, LABELS)


def planned_row(config: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that are known before a trial starts, from its configuration."""
    dataset, model, train = config["dataset"], config["model"], config["train"]
    row = {"dataset": dataset["name"], "image_size": dataset["image_size"], **model, **train}
    row["planned_epochs"] = row.pop("epochs")
    row["subset"] = row.get("subset") or "shared"
    return row


def write_suggestions(results_dir: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write what a search suggested, one row per suggestion, as parquet and CSV."""
    _write(results_dir, "suggestions", pd.DataFrame(list(rows)))


def pareto_stacks(results_dir: Path) -> set[str] | None:
    """Stacks on the Pareto front; None where no search had several objectives."""
    path = results_dir / "suggestions.parquet"
    if not path.is_file():
        return None
    rows = pd.read_parquet(path)
    objectives = set(OBJECTIVES) & set(rows.columns)
    return set(rows.loc[rows["pareto"], "stack_id"]) if len(objectives) > 1 else None


def write(results_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build the tables (labels where there are any) and write them as parquet and CSV."""
    trials, epochs, labels = build_all(results_dir)
    for name, frame in (("trials", trials), ("epochs", epochs), ("labels", labels)):
        if name != "labels" or len(frame):
            _write(results_dir, name, frame)
    return trials, epochs


def _write(results_dir: Path, name: str, frame: pd.DataFrame) -> None:
    with replacing(results_dir / f"{name}.parquet") as path:
        frame.to_parquet(path, index=False)
    with replacing(results_dir / f"{name}.csv") as path:
        frame.to_csv(path, index=False)


def _fill_running(trials: Mapping[str, dict[str, Any]], epochs: pd.DataFrame) -> None:
    """Show the last epoch of trials that have not ended, so that a partial table says something."""
    waiting = [key for key, trial in trials.items() if trial.get("status") == Status.PLANNED]
    seen = epochs[epochs["trial_id"].isin(waiting)].drop_duplicates("trial_id", keep="last")
    for row in seen.to_dict("records"):
        trial = trials[row["trial_id"]]
        trial["epochs"], trial["status"] = row["epoch"], Status.RUNNING.value
        trial.update({str(k): row[k] for k in row if str(k).endswith(("_loss", "_accuracy"))})


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> pd.DataFrame:
    """A frame with exactly these columns and types, also where a column is empty."""
    content = pd.DataFrame(
        {c.name: [row.get(c.name) for row in rows] for c in columns}, dtype=object
    )
    return content.astype({c.name: c.dtype for c in columns})
