"""Open the results of a sweep, finished or not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import pandas as pd

from vitbench.config import results_values
from vitbench.records import environment, tables
from vitbench.records.folder import require_results

Computed = TypeVar("Computed")


@dataclass(frozen=True)
class Results:
    """One results folder."""

    folder: Path
    trials: pd.DataFrame  # a row per trial (records.rows.TRIALS)
    epochs: pd.DataFrame  # a row per trial and epoch (records.rows.EPOCHS)
    sweep: dict[str, Any]  # the resolved sweep file, as plain values
    environment: dict[str, Any]  # environment.json
    target: float | None = None  # validation accuracy to time the arms by
    # A row per trial and label (records.rows.LABELS); none where models learned classes.
    labels: pd.DataFrame = field(default_factory=tables.no_labels)
    growing: tables.Growing | None = None  # the tables of its ledger, while it is watched
    _computed: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def partial(self) -> bool:
        """Whether some trial has no end yet: the sweep runs, or died."""
        return bool(self.trials["status"].isin(["planned", "running"]).any())

    @property
    def is_grid(self) -> bool:
        """Whether every combination of settings was trained, and none was suggested."""
        return bool(self.sweep["search"]["method"] == "grid")

    @property
    def dataset(self) -> str:
        """The data set that was really used; what a path leads to by its name."""
        name = str(self.sweep["dataset"]["name"])
        by_path = name in ("folder", "huggingface")
        return str(self.environment.get("dataset", name)) if by_path else name

    @property
    def scale(self) -> str | None:
        """The scale at which the file was run; None where it has none to choose from."""
        if self.environment.get("scales") == []:
            return None
        return self.environment.get("scale")

    @property
    def subtitle(self) -> str:
        """What every figure must say: data set, scale, images, models, seeds."""
        seeds = self.trials["seed"].nunique()
        sizes = [f"{n:,}" for n in sorted(self.trials["train_images"].dropna().unique())]
        images = ", ".join(sizes) if len(sizes) < 4 else f"{sizes[0]} to {sizes[-1]}"
        scale = f"{self.scale} scale, " if self.scale else ""
        text = (
            f"{self.dataset}, {scale}{images} training images{self._length}, "
            f"{len(self.trials)} models, {seeds} seed{'s' if seeds != 1 else ''}"
        )
        return f"PARTIAL: {text}" if self.partial else text

    @property
    def _length(self) -> str:
        """How long models of several sizes of data trained: equal updates or equal epochs."""
        if self.trials["train_images"].nunique() < 2:
            return ""
        for column, unit in (("steps", "updates"), ("planned_epochs", "epochs")):
            known = set(self.trials[column].dropna()) if column in self.trials else set()
            if len(known) == 1:
                return f", equal {unit} ({known.pop():,})"
        return ""


def computed_once(function: Callable[[Results], Computed]) -> Callable[[Results], Computed]:
    """Keep what a function computes from results with them: figures, words and tables share it.

    Callers get the same object each time and must not change it.
    """

    @functools.wraps(function)
    def once(opened: Results) -> Computed:
        if function not in opened._computed:
            opened._computed[function] = function(opened)
        return cast(Computed, opened._computed[function])

    return once


def load(
    folder: Path, target: float | None = None, growing: tables.Growing | None = None
) -> Results:
    """Open a results folder; its tables are rebuilt from the ledger where that is newer.

    Args:
        folder: of the results.
        target: the validation accuracy to time the arms by; the sweep's own if left out.
        growing: the tables of its ledger, for who opens it again and again while it grows.

    Raises:
        UserError: if the folder holds no results, or damaged ones.
    """
    require_results(folder)
    trials, epochs, labels = tables.load(folder, growing)
    values, facts = results_values(folder), environment.read(folder)
    target = values.get("target_accuracy") if target is None else target
    return Results(folder, trials, epochs, values, facts, target, labels, growing)
