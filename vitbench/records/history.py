"""What a ledger says of the runs so far: who is done, who is not, and what was spent."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from vitbench.records import ledger
from vitbench.records.types import Decided, EpochRow, Status, TrialOutcome

_APART = {"trial_id", "epoch", "attention_entropy", "grad_norm", "weight_norm"}
_NUMBERS = tuple(f.name for f in fields(EpochRow) if f.name not in _APART)
_RUN = b'{"kind": "run"'
_OF_A_SUGGESTION = ("number", "params", "reason")
_EVALUATED = {"val_loss", "test_loss", "val_accuracy", "test_accuracy"}
_OPTIONAL = {f.name for f in fields(EpochRow) if f.default is None}


class Spent:
    """Wall-clock seconds of all runs of a ledger together, as in `History`, in a quick pass.

    Looked at are the first line of each run and the last before the next, nothing between them;
    asked again, only what was added since.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._bookmark = path, ledger.Bookmark()
        self._begin_again()

    def _begin_again(self) -> None:
        self._before_s = 0.0  # of the runs before the last
        self._first, self._last = b"", b""  # lines of the last run

    def seconds(self) -> float:
        """The seconds by now."""
        with self._path.open("rb") as file:
            if not self._bookmark.go_on(file):
                self._begin_again()
            for line in file:
                if not line.endswith(b"\n"):
                    break  # it is being written
                if line.startswith(_RUN):
                    self._before_s += self._run_s()
                    self._first = line
                self._last = line
                self._bookmark.bytes += len(line)
        return self._before_s + self._run_s()

    def _run_s(self) -> float:
        return _time_s(self._last) - _time_s(self._first) if self._first else 0.0


def _time_s(line: bytes) -> float:
    """When a line was written."""
    return float(json.loads(line)["time_s"])


class Curve:
    """The epochs of one trial, in 80 bytes each; an epoch that was trained twice counts once."""

    def __init__(self) -> None:
        self._epochs = array("q")
        self._numbers = array("d")

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in a line of the ledger; a number that it does not have is NaN."""
        self._epochs.append(line["epoch"])
        self._numbers.extend([line.get(name, float("nan")) for name in _NUMBERS])

    def __len__(self) -> int:
        return len(set(self._epochs))

    def rows(self, trial_id: str) -> dict[int, EpochRow]:
        """Rows by epoch, each the last that was added."""
        rows_by_epoch = {}
        for at, epoch in enumerate(self._epochs):
            numbers = self._numbers[at * len(_NUMBERS) : (at + 1) * len(_NUMBERS)]
            values: dict[str, Any] = dict(zip(_NUMBERS, numbers, strict=True))
            # In the epoch at which a model diverged NaN is what was measured.
            measured = _EVALUATED if math.isnan(values["train_loss"]) else set()
            absent = {k for k in _OPTIONAL - measured if math.isnan(values.get(k, math.nan))}
            known = {k: v for k, v in values.items() if k not in absent}
            rows_by_epoch[epoch] = EpochRow(trial_id=trial_id, epoch=epoch, **known)
        return rows_by_epoch


@dataclass
class History:
    """The state of a sweep, from its ledger; by trial id, but for the stacks."""

    configs: dict[str, dict[str, Any]] = field(default_factory=dict)  # in the order of planning
    stacks: dict[str, list[str]] = field(default_factory=dict)  # trial ids, as last planned
    outcomes: dict[str, TrialOutcome] = field(default_factory=dict)  # the last of each trial
    curves: dict[str, Curve] = field(default_factory=dict)
    spent_s: float = 0.0  # wall-clock, of all runs together
    threads: dict[str, int] = field(default_factory=dict)  # as last planned; 1 by older versions
    suggestions: list[dict[str, Any]] = field(default_factory=list)  # of a search: what it drew
    decided: Decided | None = None  # None also for sweeps of versions that decided nothing

    @classmethod
    def read(cls, path: Path) -> History:
        """Read a ledger; an empty history where there is none."""
        return cls.of(ledger.read(path)) if path.is_file() else cls()

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]]) -> History:
        """Collect the lines of a ledger."""
        history = cls()
        stack_of: dict[str, str] = {}
        run_started_s, latest_s = None, 0.0
        for line in lines:
            kind, time_s = line["kind"], line["time_s"]
            if kind == "run":
                if run_started_s is not None:
                    history.spent_s += latest_s - run_started_s
                run_started_s = time_s
            latest_s = time_s
            trial_id = line.get("trial_id", "")
            if kind == "trial":
                history.configs[trial_id] = line["config"]
                history.threads[trial_id] = line.get("threads", 1)
                if trial_id in stack_of:  # a resume may have regrouped it
                    history.stacks[stack_of[trial_id]].remove(trial_id)
                stack_of[trial_id] = line["stack_id"]
                history.stacks.setdefault(line["stack_id"], []).append(trial_id)
            elif kind == "outcome" and "status" in line:
                history.outcomes[trial_id] = TrialOutcome.from_json(line)
            elif kind == "outcome":  # its checkpoint was removed
                history.outcomes[trial_id] = replace(history.outcomes[trial_id], checkpoint=None)
            elif kind == "suggestion":
                history.suggestions.append({name: line.get(name) for name in _OF_A_SUGGESTION})
            elif kind == "decided":
                history.decided = Decided.from_json(line)
            elif kind == "epoch":
                history.curves.setdefault(trial_id, Curve()).add(line)
        if run_started_s is not None:
            history.spent_s += latest_s - run_started_s
        return history

    def rows(self, trial_id: str) -> dict[int, EpochRow]:
        """The trial's rows by epoch; none where it was not trained."""
        curve = self.curves.get(trial_id)
        return {} if curve is None else curve.rows(trial_id)

    def is_done(self, trial_id: str) -> bool:
        """Whether the trial has an end that stands."""
        status = self.status(trial_id)
        return status is not None and status.is_done

    def status(self, trial_id: str) -> Status | None:
        """The trial's last status, or None if it never ended."""
        outcome = self.outcomes.get(trial_id)
        return None if outcome is None else outcome.status

    @property
    def done(self) -> int:
        """Trials that have an end that stands."""
        return sum(outcome.status.is_done for outcome in self.outcomes.values())

    @property
    def epochs_trained(self) -> int:
        """Epochs of all models together; one that was trained twice counts once."""
        return sum(map(len, self.curves.values()))

    @property
    def stack_seconds(self) -> float:
        """Seconds that stacks trained, each stack's epoch counted once for all its members."""
        stack_of = {t: stack for stack, members in self.stacks.items() for t in members}
        seen: dict[tuple[str, int], float] = {}
        for trial_id in self.curves:
            for epoch, row in self.rows(trial_id).items():
                seen[stack_of.get(trial_id, trial_id), epoch] = row.epoch_s
        return sum(seen.values())
