"""What a ledger says of the runs so far: who is done, who is not, and what was spent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitbench.records import ledger

# A trial that ended so is never trained again; every other status goes on with a resume.
DONE = frozenset({"finished", "diverged", "stopped"})
CRASHED = frozenset({"crashed", "oom"})


@dataclass
class History:
    """The state of a sweep, from its ledger.

    Attributes:
        configs: configuration of each planned trial, in the order of planning.
        stacks: trial ids of each stack, as last planned.
        outcomes: last outcome of each trial that has one.
        epochs: rows of each trial by epoch.
        spent_s: wall-clock seconds of all runs together.
    """

    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    stacks: dict[str, list[str]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    epochs: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    spent_s: float = 0.0

    @classmethod
    def read(cls, path: Path) -> History:
        """Read a ledger; an empty history where there is none."""
        return cls.of(ledger.read(path)) if path.is_file() else cls()

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]]) -> History:
        """Collect the lines of a ledger."""
        history = cls()
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
                for members in history.stacks.values():  # a resume may have regrouped it
                    if trial_id in members:
                        members.remove(trial_id)
                history.stacks.setdefault(line["stack_id"], []).append(trial_id)
            elif kind == "outcome":
                history.outcomes.setdefault(trial_id, {}).update(line)
            elif kind == "epoch":
                history.epochs.setdefault(trial_id, {})[line["epoch"]] = dict(line)
        if run_started_s is not None:
            history.spent_s += latest_s - run_started_s
        return history

    def is_done(self, trial_id: str) -> bool:
        """Whether the trial has an end that stands."""
        return self.status(trial_id) in DONE

    def status(self, trial_id: str) -> str | None:
        """The trial's last status, or None if it never ended."""
        outcome = self.outcomes.get(trial_id)
        return str(outcome["status"]) if outcome else None

    @property
    def done(self) -> int:
        """Trials that have an end that stands."""
        return sum(self.is_done(trial_id) for trial_id in self.outcomes)

    @property
    def epochs_trained(self) -> int:
        """Epochs of all models together; one that was trained twice counts once."""
        return sum(len(rows) for rows in self.epochs.values())

    @property
    def stack_seconds(self) -> float:
        """Seconds that stacks trained, each stack's epoch counted once for all its members."""
        stack_of = {t: stack for stack, members in self.stacks.items() for t in members}
        seen: dict[tuple[str, int], float] = {}
        for trial_id, rows in self.epochs.items():
            for epoch, row in rows.items():
                seen[stack_of.get(trial_id, trial_id), epoch] = row["epoch_s"]
        return sum(seen.values())
