"""One run per trained model from the tables of a results folder, as experiment trackers want it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitbench.analysis.results import Results
from vitbench.config import Dataset, Model, Train
from vitbench.plan.names import value_text
from vitbench.records import tables
from vitbench.records.history import History
from vitbench.records.rows import EPOCH_COLUMNS, TRIAL_COLUMNS

_LONG_NAME = 80  # characters
_FIELDS = {*Dataset.model_fields, *Model.model_fields, *Train.model_fields} - {"epochs"}
# Columns of the table of trials: what a model was told, and numbers that came out.
_TOLD = _FIELDS | {"dataset", "planned_epochs", "precision_used", "threads"}
_SETTINGS = [name for name in TRIAL_COLUMNS if name in _TOLD]
_OUTCOMES = [name for name in TRIAL_COLUMNS if name not in {*_SETTINGS, *EPOCH_COLUMNS}]


@dataclass(frozen=True)
class Run:
    """A model that has begun to train."""

    id: str  # of the results folder and the model; the same whenever the folder is exported
    name: str  # what varies in the sweep, and the trial id
    group: str  # the sweep and the results folder
    config: dict[str, Any]  # settings that are set, as columns of the trials; sweep and trial id
    status: str  # value of a records.types.Status
    outcome: dict[str, float]  # finite numbers that the model ended with and that no epoch has
    epochs: dict[int, dict[str, float]]  # finite numbers of each, as columns of the epochs


def run_name(trial_id: str, settings: Mapping[str, Any], varying: Sequence[str]) -> str:
    """Name a run, e.g. `lr=0.003 seed=0 1f3c...`; long ones are cut before the trial id."""
    values = ((name, settings.get(name)) for name in varying)
    parts = [f"{name}={value_text(value)}" for name, value in values if value is not None]
    return f"{' '.join(parts)[:_LONG_NAME]} {trial_id}".strip()


def runs_of(results: Results) -> list[Run]:
    """The runs of a results folder, in the order of the table of trials.

    Settings that the table lacks, such as the momentum, are taken from the ledger where it is.
    """
    configs = History.read(results.folder / tables.LEDGER).configs
    rows = {str(row["trial_id"]): row for row in _plain(results.trials)}
    begun = {trial_id: row for trial_id, row in rows.items() if row["status"] != "planned"}
    settings = {i: _settings(row, configs.get(i)) for i, row in begun.items()}
    names = next(iter(settings.values()), {})
    varying = [n for n in names if len({str(s[n]) for s in settings.values()}) > 1]
    epochs: dict[str, dict[int, dict[str, float]]] = {}
    for row in _plain(results.epochs):
        epochs.setdefault(row["trial_id"], {})[row["epoch"]] = finite(row)
    sweep, folder = results.sweep["name"], results.folder.resolve().name
    return [
        Run(
            id=f"{folder}-{trial_id}",
            name=run_name(trial_id, settings[trial_id], varying),
            group=f"{sweep}/{folder}",
            config={k: v for k, v in settings[trial_id].items() if v is not None}
            | {"trial": trial_id, "sweep": sweep},
            status=row["status"],
            outcome=finite({name: row[name] for name in _OUTCOMES if name in row}),
            epochs=epochs.get(trial_id, {}),
        )
        for trial_id, row in begun.items()
    ]


def _settings(row: Mapping[str, Any], config: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a model was told: the row's settings, and from the ledger those that it lacks."""
    told = {**config["dataset"], **tables.planned_row(config)} if config else {}
    told.pop("name", None)  # a data set's, which `dataset` has
    return {**told, **{name: row[name] for name in _SETTINGS if name in row}}


def finite(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a row but for its epoch, which is the step of the others."""
    return {
        name: value
        for name, value in row.items()
        if name != "epoch" and isinstance(value, int | float) and math.isfinite(value)
    }


def _plain(frame: Any) -> list[dict[str, Any]]:
    """Rows of a frame as plain Python values, None where one is missing."""
    rows: list[dict[str, Any]] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return rows
