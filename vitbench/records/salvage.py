"""What can be saved of a damaged record: its whole lines, and the tables that they give."""

from __future__ import annotations

import fcntl
import json
import time
from dataclasses import dataclass
from pathlib import Path

from vitbench.errors import UserError
from vitbench.records import ledger, tables


@dataclass(frozen=True)
class Salvage:
    """What was found in a ledger; nothing was changed where no line is garbled."""

    garbled: list[int]  # numbers of lines, from 1
    whole: int
    kept_as: Path | None  # the damaged ledger
    trials: int  # in the tables that were built
    epochs: int


def salvage(results_dir: Path) -> Salvage:
    """Take garbled lines out of a ledger, which is kept beside, and build the tables anew.

    Where the plan of a trial was among them, nobody knows its settings: its rows go, too.

    A last line without its end belongs to a driver that was killed while it wrote: the next one
    cuts it off, and it is not counted here.

    Raises:
        UserError: if there is no ledger, a driver has it open, or no line of it is whole.
    """
    path = results_dir / tables.LEDGER
    if not path.is_file():
        raise UserError(f"{path}: there is no ledger; name a results folder of a sweep")
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{path}: a sweep is writing it; wait for its end") from None
        lines = file.readlines()
        garbled = [
            number
            for number, line in enumerate(lines, 1)
            if line.endswith(b"\n") and not ledger.is_whole_line(line)
        ]
        whole = [line for n, line in enumerate(lines, 1) if n not in set(garbled)]
        if not whole:
            raise UserError(f"{path}: none of its {len(lines)} lines is whole; nothing to save")
        kept_as = None
        if garbled:
            whole = _of_planned_trials(whole)
            kept_as = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
            kept_as.write_bytes(b"".join(lines))
            with path.open("r+b") as out:  # the same file, which stays locked
                out.write(b"".join(whole))
                out.truncate()
        trials, epochs = tables.write(results_dir)
    return Salvage(garbled, len(whole), kept_as, len(trials), len(epochs))


def _of_planned_trials(lines: list[bytes]) -> list[bytes]:
    """Without epochs and outcomes of trials whose plan is not there; a torn last line stays."""
    told = [json.loads(line) if ledger.is_whole_line(line) else {} for line in lines]
    planned = {line.get("trial_id") for line in told if line.get("kind") == "trial"}
    rows = ("epoch", "outcome")
    return [
        line
        for line, content in zip(lines, told, strict=True)
        if content.get("kind") not in rows or content["trial_id"] in planned
    ]
