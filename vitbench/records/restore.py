"""A ledger for a results folder that holds tables alone, so that --resume can go on with it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitbench.config import TrialConfig
from vitbench.records import tables
from vitbench.records.files import write_atomically
from vitbench.records.types import Status

# Columns of labels.parquet that were measured; the others are computed from them.
_MEASURED = (
    "label",
    *(
        f"{split}_{count}"
        for split in ("train", "val", "test")
        for count in ("images", "positives")
    ),
    "test_bce",
    "test_accuracy",
    "roc_auc",
    "average_precision",
    "mcc",
    "balanced_accuracy",
)
_NOT_ENDED = ("planned", "running")


def restore_ledger(results_dir: Path, configs: Mapping[str, TrialConfig]) -> None:
    """Write the ledger that the tables of a results folder were built from.

    Tables that are built from it equal those that are there. A trial that has not ended and has an
    id of an earlier id version gets today's, under which it is trained.

    Args:
        results_dir: with trials.parquet and epochs.parquet, and labels.parquet if it has labels.
        configs: of each trial in trials.parquet, by the id that it has there.
    """
    text = "".join(json.dumps(line) + "\n" for line in _lines(results_dir, configs))
    write_atomically(results_dir / tables.LEDGER, text)


def _lines(results_dir: Path, configs: Mapping[str, TrialConfig]) -> Iterator[dict[str, Any]]:
    environment = json.loads((results_dir / "environment.json").read_text(encoding="utf-8"))
    time_s = datetime.fromisoformat(environment["time_utc"]).timestamp()
    trials = _rows(results_dir / "trials.parquet")
    ids = {
        row["trial_id"]: row["trial_id"]
        if Status(row["status"]).is_done
        else configs[row["trial_id"]].trial_id
        for row in trials
    }
    yield {
        "kind": "run",
        "time_s": time_s,
        "argv": environment["command"][3:],
        "scale": environment["scale"],
        "restored": "from the tables",
    }
    for row in trials:
        yield {
            "kind": "trial",
            "time_s": time_s,
            "trial_id": ids[row["trial_id"]],
            "stack_id": row["stack_id"],
            "config": configs[row["trial_id"]].model_dump(mode="json"),
        }
    for row in _rows(results_dir / "epochs.parquet"):
        yield {"kind": "epoch", "time_s": time_s, **row, "trial_id": ids[row["trial_id"]]}
    labels: dict[str, list[dict[str, Any]]] = {}
    if (results_dir / "labels.parquet").is_file():
        for row in _rows(results_dir / "labels.parquet"):
            measured = {name: row[name] for name in _MEASURED}
            labels.setdefault(row["trial_id"], []).append(_without_nan(measured))
    for row in trials:
        if row["status"] not in _NOT_ENDED:
            of_trial = {"labels": labels.get(row["trial_id"], []), "trial_id": ids[row["trial_id"]]}
            yield {"kind": "outcome", "time_s": time_s, **row, **of_trial}


def _rows(table: Path) -> list[dict[str, Any]]:
    """Rows of a table as JSON values: None where a whole number, a text or a truth is missing."""
    frame = pd.read_parquet(table)
    columns = [list(map(_plain, frame[name].tolist())) for name in frame]
    names = [str(name) for name in frame]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    """A cell as JSON has it; cells that hold a number for each layer are lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if value is pd.NA else value


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """Scores that a label has not are None, as they were reported."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
