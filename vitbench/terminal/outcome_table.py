"""The table that a sweep ends with."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from vitbench.plan.names import value_text

_MAX_ROWS = 40
_NARROW = 140
# Header, column, form, and whether a narrow terminal has it; trials.csv has all.
_RESULTS = (
    ("status", "status", None, True),
    ("best val loss", "best_val_loss", ".4g", True),
    ("at epoch", "best_epoch", "d", True),
    ("train loss", "train_loss", ".4g", False),
    ("val loss", "val_loss", ".4g", False),
    ("val acc", "val_accuracy", ".4f", True),
    ("test acc", "test_accuracy", ".4f", True),
    ("epochs", "epochs", "d", False),
    ("images/s", "images_per_s", ",.0f", False),
    ("wall s", "wall_s", ",.1f", False),
)
_ORDER = "Sorted by the lowest validation loss at any epoch; the rest is after the last epoch."


def outcome_table(
    frame: pd.DataFrame,
    fields: Sequence[str],
    title: str,
    front: Collection[str] | None = None,
    *,
    width: int,
) -> Table:
    """One row per trial, that with the lowest validation loss at any epoch first.

    Long sweeps show their head. `fields` are settings to show, `front` the stacks on the Pareto
    front, where a search had several objectives, `width` that of the screen in characters.
    """
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    shown_fields = [name for name in fields if name in frame.columns]
    for name in shown_fields:
        table.add_column(name, justify="right", no_wrap=True)
    columns = [c for c in _RESULTS if width >= _NARROW or c[-1]]
    for header, _, form, _ in columns:
        table.add_column(header, justify="right" if form else "left", no_wrap=True)
    if front is not None:
        table.add_column("Pareto front")
    table.add_column("trial", no_wrap=True)
    ordered = frame.sort_values("best_val_loss", na_position="last", kind="stable")
    for _, row in ordered.head(_MAX_ROWS).iterrows():
        table.add_row(
            *(Text(value_text(row[name])) for name in shown_fields),
            *(_cell(row.get(column), form) for _, column, form, _ in columns),
            *(["yes" if row["stack_id"] in front else ""] if front is not None else []),
            str(row["trial_id"]),
        )
    more = len(ordered) - _MAX_ROWS
    table.caption = f"{_ORDER} {more} more in trials.csv." if more > 0 else _ORDER
    table.caption_justify = "left"
    return table


def failures(frame: pd.DataFrame) -> list[str]:
    """One line for each trial that failed, with its reason."""
    failed = frame[frame["status"].isin(["crashed", "oom"])]
    return [f"{row.trial_id}: {row.status}: {row.error}" for row in failed.itertuples()]


def _cell(value: Any, form: str | None) -> Text:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return Text("-")
    if form is None:
        return Text(str(value), style="" if value == "finished" else "yellow")
    return Text(format(int(value) if form == "d" else float(value), form))
