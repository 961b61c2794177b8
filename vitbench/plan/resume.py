"""Going on with a sweep: which folder, whether the file still asks the same, what is left."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from vitbench.config import Sweep, TrialConfig, load_results_sweep, setting_of
from vitbench.errors import UserError
from vitbench.plan.stacks import StackPlan
from vitbench.plan.trials import expand, trial_of
from vitbench.records import tables
from vitbench.records.history import History
from vitbench.records.restore import restore_ledger

# What may change between runs of one sweep: none of it changes what a trial computes.
_FREE = {
    *("description", "storage", "resources", "stack_size", "budget", "checkpoints"),
    *("evaluation", "attention", "exports", "max_failures", "stall_minutes", "claims"),
    "scales",
}


def find(out: Path, name: str, wanted: str) -> Path:
    """The results folder to go on with: the latest run of the sweep, or the one named.

    Raises:
        UserError: if there is none.
    """
    if wanted != "latest":
        if not _can_go_on(Path(wanted)):
            raise UserError(
                f"--resume {wanted}: holds no {tables.LEDGER} with a line, and no tables; name a "
                f"results folder, or write --resume alone for the latest run of this sweep"
            )
        return Path(wanted)
    runs = sorted(path for path in (out / name).glob("*") if _can_go_on(path))
    if not runs:
        raise UserError(
            f"--resume: there is no run of '{name}' under {out}; leave --resume out to start one, "
            f"or name the folder with --out"
        )
    return runs[-1]


def _can_go_on(folder: Path) -> bool:
    """Whether a folder holds the record of a sweep, or the tables to restore it from.

    The first line of the record is written last: a run that was killed before has nothing to go on
    with.
    """
    needed = ("trials.parquet", "epochs.parquet", "sweep.yaml", "environment.json")
    ledger = folder / tables.LEDGER
    begun = ledger.is_file() and ledger.stat().st_size > 0
    return begun or all((folder / n).is_file() for n in needed)


def restore_record(results_dir: Path) -> None:
    """Write the ledger of a results folder that holds tables alone (see records.restore).

    Raises:
        UserError: if the sweep file there does not tell what some trial's settings were.
    """
    for name in ("trials", "epochs", "labels"):
        for path in (results_dir / f"{name}.parquet", results_dir / f"{name}.csv"):
            if path.is_dir():
                raise UserError(f"{path}: a folder stands where a file belongs; move it away")
    if (results_dir / tables.LEDGER).is_file():
        return
    sweep = load_results_sweep(results_dir)
    axes = [*sweep.search.space, *sweep.search.inner]
    table = tables.read(results_dir / "trials.parquet", ("trial_id", "status"))
    planned = {trial.trial_id: trial for trial in expand(sweep)} if sweep.search.is_grid else {}
    configs = {}
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        trial_id = str(row["trial_id"])
        missing = [name for name in axes if setting_of(name) not in row]
        if trial_id in planned:
            configs[trial_id] = planned[trial_id]
        elif missing:
            raise UserError(
                f"--resume {results_dir}: trials.parquet has no column {missing[0]}, so its trials "
                f"are not known; start a new run without --resume"
            )
        else:
            configs[trial_id] = trial_of(sweep, {n: row[setting_of(n)] for n in axes})
    restore_ledger(results_dir, configs)


def check_same(before: Sweep, now: Sweep, folder: Path) -> None:
    """Refuse a changed sweep, with a diff; added grid points and larger budgets are no change.

    Raises:
        UserError: if trials of the old sweep are not trials of the new one.
    """
    old, new = _asked(before), _asked(now)
    if before.search.is_grid and now.search.is_grid:
        old_ids, new_ids = ({trial.trial_id for trial in expand(s)} for s in (before, now))
        if old_ids <= new_ids:
            return
    elif old == new:
        if now.search.suggestions >= before.search.suggestions:
            return
        old["search"]["suggestions"] = before.search.suggestions
        new["search"]["suggestions"] = now.search.suggestions
    a, b = (yaml.safe_dump(asked, sort_keys=False).splitlines() for asked in (old, new))
    lines = difflib.unified_diff(a, b, str(folder / "sweep.yaml"), "now", lineterm="", n=1)
    raise UserError(
        "--resume: the sweep has changed since it was started, so its results do not belong "
        "together:\n" + "\n".join(lines) + "\nUndo the change, or start a new run without "
        "--resume. (Added grid points and larger search.suggestions or budget extend a sweep.)"
    )


def _asked(sweep: Sweep) -> dict[str, Any]:
    content = sweep.model_dump(mode="json", exclude=_FREE)
    del content["search"]["suggestions"], content["search"]["concurrency"]
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
    have ended goes on with the others. `epochs_of` a trial, by its id, are those that it can go on
    from.
    """
    named = {_id_today(config, known): known for known, config in history.configs.items()}
    by_id = {named.get(trial.trial_id, trial.trial_id): trial for trial in trials}
    stacks, continued, retried = [], [], 0
    for ids in history.stacks.values():
        members = [by_id[i] for i in ids if i in by_id and not history.is_done(i)]
        if not members:
            continue
        stacks.append(StackPlan(tuple(members)))
        epochs = [epochs_of(member.trial_id) for member in members]
        common = max(set.intersection(*epochs), default=0)
        for member in members:
            status = history.status(member.trial_id)
            if status is not None and status.is_failure:
                retried += 1
            elif common:
                continued.append(common)
    new = [trial for known, trial in by_id.items() if known not in history.configs]
    done = sum(history.is_done(trial_id) for trial_id in by_id)
    return Remainder(stacks, new, done, continued, retried)


def _id_today(config: Mapping[str, Any], known: str) -> str:
    """The id that a recorded trial would have now, whatever id version it was recorded under."""
    try:
        return TrialConfig.model_validate(config).trial_id
    except ValidationError:  # it has settings that are not known here: its own id has to do
        return known
