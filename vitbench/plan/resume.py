"""Going on with a sweep: which folder, whether the file still asks the same, what is left."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vitbench.config import Sweep, TrialConfig
from vitbench.errors import UserError
from vitbench.plan import StackPlan, expand
from vitbench.records import tables
from vitbench.records.history import CRASHED, History

# What may change between runs of one sweep: none of it changes what a trial computes.
_FREE = (
    "description",
    "storage",
    "resources",
    "stack",
    "budget",
    "checkpoints",
    "attention",
    "exports",
    "max_failures",
    "scales",
)
_FREE_SEARCH = ("trials", "concurrency")


def find(out: Path, name: str, wanted: str) -> Path:
    """The results folder to go on with: the latest run of the sweep, or the one named.

    Raises:
        UserError: if there is none.
    """
    if wanted != "latest":
        folder = Path(wanted)
        if not (folder / tables.LEDGER).is_file():
            raise UserError(
                f"--resume {wanted}: holds no {tables.LEDGER}; name a results folder, or write "
                f"--resume alone for the latest run of this sweep"
            )
        return folder
    runs = sorted(path.parent for path in (out / name).glob(f"*/{tables.LEDGER}"))
    if not runs:
        raise UserError(
            f"--resume: there is no run of '{name}' under {out}; leave --resume out to start one, "
            f"or name the folder with --out"
        )
    return runs[-1]


def check_same(before: Sweep, now: Sweep, folder: Path) -> None:
    """Refuse a changed sweep, with a diff; added grid points and larger budgets are no change.

    Raises:
        UserError: if trials of the old sweep are not trials of the new one.
    """
    old, new = _asked(before), _asked(now)
    if before.search.is_grid and now.search.is_grid:
        old_ids = {trial.trial_id for trial in expand(before)}
        if old_ids <= {trial.trial_id for trial in expand(now)}:
            return
    elif old == new and now.search.trials >= before.search.trials:
        return
    elif old == new:
        old["search"]["trials"], new["search"]["trials"] = before.search.trials, now.search.trials
    lines = difflib.unified_diff(
        yaml.safe_dump(old, sort_keys=False).splitlines(),
        yaml.safe_dump(new, sort_keys=False).splitlines(),
        str(folder / "sweep.yaml"),
        "now",
        lineterm="",
        n=1,
    )
    raise UserError(
        "--resume: the sweep has changed since it was started, so its results do not belong "
        "together:\n" + "\n".join(lines) + "\nUndo the change, or start a new run without "
        "--resume. (Added grid points and larger search.trials or budget extend a sweep.)"
    )


def _asked(sweep: Sweep) -> dict[str, Any]:
    content = sweep.model_dump(mode="json", exclude=set(_FREE))
    for key in _FREE_SEARCH:
        del content["search"][key]
    return content


@dataclass(frozen=True)
class Remainder:
    """What is left of a grid: whole stacks where possible, as they were put together before."""

    stacks: list[StackPlan]
    new: list[TrialConfig]
    done: int
    continued: list[int]  # epochs at which trials go on
    retried: int

    def text(self) -> str:
        """`31 done, 2 continued at epoch 118, 3 retried, 4 new, 0 repeated`."""
        parts = [f"{self.done} done"]
        if self.continued:
            low, high = min(self.continued), max(self.continued)
            at = f"epoch {low}" if low == high else f"epochs {low} to {high}"
            parts.append(f"{len(self.continued)} continued at {at}")
        parts.append(f"{self.retried} retried")
        others = sum(stack.size for stack in self.stacks) - len(self.continued) - self.retried
        if self.new or others:
            parts.append(f"{len(self.new) + others} new")
        return ", ".join([*parts, "0 repeated"])


def remainder(
    trials: Sequence[TrialConfig], history: History, epochs_of: Callable[[str], set[int]]
) -> Remainder:
    """Split the trials of a sweep into done, to be continued, to be retried and new.

    Trials of one stack stay together: they are at the same epoch. A stack of which some members
    have ended goes on with the others.

    Args:
        trials: of the sweep.
        history: of the runs before.
        epochs_of: a trial, by its id, that it can go on from.
    """
    by_id = {trial.trial_id: trial for trial in trials}
    stacks, continued, retried = [], [], 0
    for ids in history.stacks.values():
        members = [by_id[i] for i in ids if i in by_id and not history.is_done(i)]
        if not members:
            continue
        stacks.append(StackPlan(tuple(members)))
        epochs = [epochs_of(member.trial_id) for member in members]
        common = max(set.intersection(*epochs), default=0)
        for member in members:
            if history.status(member.trial_id) in CRASHED:
                retried += 1
            elif common:
                continued.append(common)
    new = [trial for trial in trials if trial.trial_id not in history.configs]
    done = sum(history.is_done(trial_id) for trial_id in by_id)
    return Remainder(stacks, new, done, continued, retried)
