"""Columns of the tables, derived from the types in `records.types`."""

from __future__ import annotations

import typing
from dataclasses import dataclass

from vitbench.records.types import EpochRow, LabelScore, Status, TrialOutcome

STATUSES = {status.value: status.meaning for status in Status}
_DTYPES: dict[object, str] = {
    str: "string", Status: "string", int: "Int64", float: "float64", bool: "boolean",
    list[float]: "object",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column: its pandas type and what it means."""

    name: str
    dtype: str
    meaning: str


def columns_of(row: type) -> tuple[Column, ...]:
    """The fields of a dataclass that are `Annotated` with words, in order."""
    columns = []
    for name, hint in typing.get_type_hints(row, include_extras=True).items():
        if typing.get_origin(hint) is typing.Annotated:
            kind, meaning = typing.get_args(hint)
            (kind,) = [k for k in typing.get_args(kind) or (kind,) if k is not type(None)]
            columns.append(Column(name, _DTYPES[kind], meaning))
    return tuple(columns)


TRIALS = columns_of(TrialOutcome)
EPOCHS = columns_of(EpochRow)
LABELS = columns_of(LabelScore)
TRIAL_COLUMNS = tuple(column.name for column in TRIALS)
EPOCH_COLUMNS = tuple(column.name for column in EPOCHS)
LABEL_COLUMNS = tuple(column.name for column in LABELS)
