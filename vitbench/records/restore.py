"""A ledger for a results folder that holds tables alone, so that --resume can go on with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitbench.config import TrialConfig
from vitbench.records import environment, tables
from vitbench.records.files import write_atomically
from vitbench.records.types import Status

# Columns of labels.parquet that were measured; the others are computed from them.
_MEASURED = (
    *("label", "train_images", "train_positives", "val_images", "val_positives"),
    *("test_images", "test_positives", "test_bce", "test_accuracy", "roc_auc"),
    *("average_precision", "mcc", "balanced_accuracy", "label_noise", "observed_rate"),
)


def restore_ledger(results_dir: Path, configs: Mapping[str, TrialConfig]) -> None:
    """Write the ledger that the tables of a results folder were built from.

    Tables that are built from it equal those that are there. `configs` are by the id that a trial
    has there; one that has not ended, with an id of an earlier version, gets today's.
    """
    text = "".join(json.dumps(line) + "\n" for line in _lines(results_dir, configs))
    write_atomically(results_dir / tables.LEDGER, text)


def _lines(results_dir: Path, configs: Mapping[str, TrialConfig]) -> Iterator[dict[str, Any]]:
    facts = environment.read(results_dir)
    try:
        time_s = datetime.fromisoformat(str(facts.get("time_utc"))).timestamp()
    except ValueError:  # not known: about when the tables were written
        time_s = (results_dir / "trials.parquet").stat().st_mtime
    trials = _rows(results_dir / "trials.parquet")
    ids = {
        row["trial_id"]: row["trial_id"]
        if Status(row["status"]).is_done
        else configs[row["trial_id"]].trial_id
        for row in trials
    }
    run = {"argv": facts.get("command", [])[3:], "scale": facts.get("scale")}
    yield {"kind": "run", "time_s": time_s, **run, "restored": "from the tables"}
    if "decided" in facts:
        yield {"kind": "decided", "time_s": time_s, **facts["decided"]}
    for row in trials:
        known = {"trial_id": ids[row["trial_id"]], "stack_id": row["stack_id"]}
        config = configs[row["trial_id"]].model_dump(mode="json")
        if row.get("threads") is not None:
            known["threads"] = row["threads"]
        yield {"kind": "trial", "time_s": time_s, **known, "config": config}
    for row in _rows(results_dir / "epochs.parquet"):
        yield {"kind": "epoch", "time_s": time_s, **row, "trial_id": ids[row["trial_id"]]}
    labels: dict[str, list[dict[str, Any]]] = {}
    if (results_dir / "labels.parquet").is_file():
        for row in _rows(results_dir / "labels.parquet"):
            known = {name: row[name] for name in _MEASURED if name in row}  # earlier ones lack some
            measured = {name: None if pd.isna(value) else value for name, value in known.items()}
            labels.setdefault(row["trial_id"], []).append(measured)
    for row in trials:
        if row["status"] not in ("planned", "running"):
            of_trial = {"labels": labels.get(row["trial_id"], []), "trial_id": ids[row["trial_id"]]}
            yield {"kind": "outcome", "time_s": time_s, **row, **of_trial}


def _rows(table: Path) -> list[dict[str, Any]]:
    """Rows of a table as JSON values: None where a whole number, a text or a truth is missing."""
    frame = tables.read(table, ("trial_id",))
    columns = {str(name): map(_plain, frame[name].tolist()) for name in frame}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    """A cell as JSON has it; cells that hold a number for each layer are lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if value is pd.NA else value
