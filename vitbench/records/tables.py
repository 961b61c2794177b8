"""Tables from the ledger: trials, epochs and labels, as parquet and CSV."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
from pyarrow import csv as csv_writer

from vitbench.config import model_settings
from vitbench.config.axes import ARGS
from vitbench.config.search import OBJECTIVES
from vitbench.errors import UserError, in_a_line
from vitbench.records import ledger
from vitbench.records.files import replacing
from vitbench.records.history import Spent
from vitbench.records.labels import label_row
from vitbench.records.rows import EPOCHS, LABELS, TRIALS, Column
from vitbench.records.types import Status, TrialOutcome

LEDGER = "ledger.jsonl"
_ARROW = {"string": pyarrow.string(), "Int64": pyarrow.int64(), "float64": pyarrow.float64(),
          "object": pyarrow.list_(pyarrow.float64())}  # fmt: skip
_EPOCHS = pyarrow.schema([(column.name, _ARROW[column.dtype]) for column in EPOCHS])


def build(results_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build two tables from the ledger: (trials, epochs).

    A trial is keyed by its id, an epoch's row by trial and epoch; the last line wins, so what a
    resumed run repeats replaces what it repeats. Trials are in the order in which they were
    planned, epochs in the order of trials and time. A trial without an outcome is `running`, or
    `planned` while it has no epoch either.
    """
    trials, epochs, _ = build_all(results_dir)
    return trials, epochs


def build_all(results_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Build (trials, epochs, labels); labels have no row where models learned classes."""
    return Growing(results_dir).build()


class Growing:
    """The tables of a ledger that grows: built again, they read only what was added."""

    def __init__(self, results_dir: Path) -> None:
        self._reader = ledger.Reader(results_dir / LEDGER, "epoch", _EPOCHS)
        self._lines: list[dict[str, Any]] = []  # of the reader, and how many of them are taken in
        self._taken = 0
        self._planned = _Trials()
        self.spent = Spent(results_dir / LEDGER)

    def build(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """(trials, epochs, labels) as `build_all` makes them of the ledger as it is now."""
        lines, rows = self._reader.read()
        if lines is not self._lines:  # the first time, or another file stands there
            self._lines, self._taken, self._planned = lines, 0, _Trials()
        self._planned.take(lines[self._taken :])
        self._taken = len(lines)
        trials = self._planned.rows()
        epochs = _epochs_frame(_in_order(rows, list(trials)))
        _fill_running(trials, epochs)
        of_trials = list(trials.values())
        return _trials(of_trials), epochs, _labels(of_trials, epochs)


def _trials(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The table of trials, with a column for every argument of the users' builders."""
    frame = _frame(rows, TRIALS)
    every = dict.fromkeys(itertools.chain.from_iterable(rows))
    for name in [key for key in every if key.startswith(ARGS)]:
        values = pd.Series([row.get(name) for row in rows], dtype=object)
        frame[name] = values.map(_plain).convert_dtypes()
    return frame


def _plain(value: Any) -> Any:
    """A list or a mapping as JSON: it may be compared and written to a table."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def load(
    results_dir: Path, growing: Growing | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(trials, epochs, labels): the tables as written, or from the ledger where that is newer.

    `growing` are those of the ledger, for who loads them again and again.

    Raises:
        UserError: if a table is damaged, and there is no ledger to build it from.
    """
    record, parquet = results_dir / LEDGER, results_dir / "trials.parquet"
    if record.is_file():
        try:
            if record.stat().st_mtime <= parquet.stat().st_mtime:
                return _written(results_dir)
        except (OSError, UserError):  # gone or damaged: the ledger holds all that they held
            pass
        return (growing or Growing(results_dir)).build()
    return _written(results_dir)


def _written(results_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    labels = results_dir / "labels.parquet"
    return (
        read(results_dir / "trials.parquet", ("trial_id", "status", "seed")),
        read(results_dir / "epochs.parquet", ("trial_id", "epoch")),
        read(labels, ("trial_id", "label")) if labels.exists() else no_labels(),
    )


def read(path: Path, needed: Sequence[str] = ()) -> pd.DataFrame:
    """A table from its parquet file.

    Raises:
        UserError: if it cannot be read, or lacks a column that it needs.
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(
            f"{path}: cannot be read as a table ({in_a_line(error)}); put it back from a copy, or "
            f"the folder's ledger.jsonl, from which tables are built"
        ) from error
    if missing := [name for name in needed if name not in table]:
        raise UserError(f"{path}: is another table: it has no column '{missing[0]}'; put it back")
    return table


def no_labels() -> pd.DataFrame:
    """The table of labels of a sweep whose models learned classes."""
    return _frame([], LABELS)


class _Trials:
    """Rows of trials by their ids, in the order in which they were planned."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}
        self._precision: str | None = None  # what `auto` was decided to be

    def take(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Take in lines of a ledger."""
        for line in lines:
            match line["kind"]:
                case "trial":  # again after a resume: its end from before does not stand
                    planned = planned_row(line["config"])
                    ids = {"trial_id": line["trial_id"], "stack_id": line["stack_id"]}
                    ids |= {"status": Status.PLANNED.value, "threads": line.get("threads")}
                    self._rows[line["trial_id"]] = {**planned, **ids}
                case "decided":
                    self._precision = line.get("precision")
                case "outcome":
                    self._rows.setdefault(line["trial_id"], {}).update(line)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows of now, which may be changed."""
        now = {trial_id: dict(row) for trial_id, row in self._rows.items()}
        for row in now.values():
            asked = row.get("precision")
            row.setdefault("precision_used", self._precision if asked == "auto" else asked)
        return now


def _in_order(rows: pyarrow.Table, trial_ids: Sequence[str]) -> pyarrow.Table:
    """Epochs in the order of trials and time, of each the last row."""
    ids = rows["trial_id"].combine_chunks().dictionary_encode()
    codes_N = ids.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    epoch_N = rows["epoch"].to_numpy()
    _, last = np.unique(((codes_N << 32) | epoch_N)[::-1], return_index=True)
    kept = np.sort(len(rows) - 1 - last)
    place_of = {trial_id: place for place, trial_id in enumerate(trial_ids)}
    # -1: was never planned
    places = np.array([place_of.get(i, -1) for i in ids.dictionary.to_pylist()], dtype=np.int64)
    return rows.take(kept[np.lexsort((epoch_N[kept], places[codes_N[kept]]))])


def _epochs_frame(rows: pyarrow.Table) -> pd.DataFrame:
    """The table of epochs in the types of its columns; a number for each layer stays a list."""
    content: dict[str, Any] = {}
    for column in EPOCHS:
        values = rows[column.name]
        if column.dtype != "object":
            content[column.name] = values.to_pandas().astype(column.dtype)
        elif values.null_count == len(values):
            content[column.name] = np.full(len(values), None, dtype=object)
        else:
            content[column.name] = pd.Series(values.to_pylist(), dtype=object)
    return pd.DataFrame(content)


def _labels(trials: Sequence[dict[str, Any]], epochs: pd.DataFrame) -> pd.DataFrame:
    asked = [TrialOutcome.from_json(trial) for trial in trials if trial.get("labels")]
    alone = [outcome.trial_id for outcome in asked if outcome.label is not None]
    curves = {
        str(trial_id): list(zip(part["epoch"].tolist(), part["val_loss"].tolist(), strict=True))
        for trial_id, part in epochs[
            epochs["trial_id"].isin(alone) & ~not_evaluated(epochs)
        ].groupby("trial_id")
    }
    rows = [
        label_row(outcome, score, curves.get(outcome.trial_id, [])).to_json()
        for outcome in asked
        for score in outcome.labels
    ]
    return _frame(rows, LABELS)


def not_evaluated(epochs: pd.DataFrame) -> pd.Series:
    """Rows of epochs that `train.evaluate_every` passes over; a diverged model's are not such."""
    unknown: pd.Series = epochs["val_loss"].isna() & epochs["train_loss"].notna()
    return unknown


def planned_row(config: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that are known before a trial starts, from its configuration."""
    dataset, model, train = config["dataset"], config["model"], config["train"]
    name = dataset.get("build") or dataset["name"]
    row = {"dataset": name, "image_size": dataset["image_size"]}
    row |= {**model_settings(model), **train}
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
    rows = read(path)
    objectives = set(OBJECTIVES) & set(rows.columns)
    return set(rows.loc[rows["pareto"], "stack_id"]) if len(objectives) > 1 else None


def write(results_dir: Path, growing: Growing | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build the tables (labels where there are any) and write them as parquet and CSV.

    `growing` are those of the ledger, for who writes them again and again.
    """
    trials, epochs, labels = (growing or Growing(results_dir)).build()
    for name, frame in (("trials", trials), ("epochs", epochs), ("labels", labels)):
        if name != "labels" or len(frame):
            _write(results_dir, name, frame)
    return trials, epochs


def _write(results_dir: Path, name: str, frame: pd.DataFrame) -> None:
    with replacing(results_dir / f"{name}.parquet") as path:
        frame.to_parquet(path, index=False)
    with replacing(results_dir / f"{name}.csv") as path:
        if name != "epochs":
            frame.to_csv(path, index=False)
            return
        # Ten times as fast, for the one table that may have millions of rows.
        layers = {c.name: frame[c.name].map(str, "ignore") for c in EPOCHS if c.dtype == "object"}
        table = pyarrow.Table.from_pandas(frame.assign(**layers), preserve_index=False)
        csv_writer.write_csv(table, path, csv_writer.WriteOptions(quoting_style="needed"))


def _fill_running(trials: Mapping[str, dict[str, Any]], epochs: pd.DataFrame) -> None:
    """Show the last epoch of trials that have not ended, so that a partial table says something."""
    waiting = [key for key, trial in trials.items() if trial.get("status") == Status.PLANNED]
    seen = epochs[epochs["trial_id"].isin(waiting)].copy()
    evaluated = ["val_loss", "test_loss", "val_accuracy", "test_accuracy"]
    seen[evaluated] = seen.groupby("trial_id")[evaluated].ffill()  # at the last evaluation
    for row in seen.drop_duplicates("trial_id", keep="last").to_dict("records"):
        trial = trials[row["trial_id"]]
        trial["epochs"], trial["status"] = row["epoch"], Status.RUNNING.value
        trial.update({str(k): row[k] for k in row if str(k).endswith(("_loss", "_accuracy"))})


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> pd.DataFrame:
    """A frame with exactly these columns and types, also where a column is empty."""
    content = pd.DataFrame(list(rows), columns=[c.name for c in columns], dtype=object)
    return content.astype({c.name: c.dtype for c in columns})
