"""`vitbench ls [FOLDER]`: the runs below a folder, with their state, their best trial and path."""

from __future__ import annotations

import argparse
import fcntl
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vitbench.errors import UserError
from vitbench.options import Parser

if TYPE_CHECKING:
    from vitbench.analysis.results import Results


@dataclass(frozen=True)
class Run:
    """One results folder."""

    path: str
    name: str  # of the sweep
    state: str  # running, complete, or how much of it is left
    best: str  # settings of the trial with the lowest validation loss at any epoch
    best_val_loss: float | None
    best_val_accuracy: float | None  # of the same epoch


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0, or 2 for bad input)."""
    args = build_parser().parse_args(argv)
    if not args.folder.is_dir():
        print(f"{args.folder}: there is no such folder; name the one that --out named, or run a "
              f"sweep first", file=sys.stderr)  # fmt: skip
        return 2
    runs = list(runs_below(args.folder))
    if args.json:
        print(json.dumps([asdict(run) for run in runs], indent=1, allow_nan=False))
    elif not runs:
        print(f"{args.folder}: holds no runs yet")
    else:
        _print(runs)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line of `vitbench ls`."""
    parser = Parser(prog="vitbench ls", description="List the runs of sweeps.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("results"), metavar="FOLDER",
                        help="where results lie (default: results)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    return parser


def runs_below(folder: Path) -> Iterator[Run]:
    """Every results folder at most two folders down, in the order of their paths.

    A folder whose results cannot be read is listed with the reason.
    """
    from vitbench.analysis.results import load

    for sweep_file in sorted({*folder.glob("*/*/sweep.yaml"), *folder.glob("*/sweep.yaml"),
                              *folder.glob("sweep.yaml")}):  # fmt: skip
        place = sweep_file.parent
        try:
            yield _run(load(place))
        except UserError as error:
            reason = str(error).splitlines()[0].removeprefix(f"{place}: ")
            yield Run(str(place), place.parent.name, f"cannot be read: {reason}", "", None, None)


def _run(results: Results) -> Run:
    trials = results.trials
    ended = trials["status"].isin(["finished", "stopped", "diverged"])
    state = "complete"
    if not ended.all():
        state = f"{int(ended.sum())} of {len(ended)} trials"
    if _is_running(results.folder):
        state = f"running, {state}" if state != "complete" else "running"
    elif failed := int(trials["status"].isin(["crashed", "oom"]).sum()):
        state += f", {failed} failed"
    usable = trials.dropna(subset=["best_val_loss"]).sort_values("best_val_loss", kind="stable")
    name = str(results.sweep["name"])
    if usable.empty:
        return Run(str(results.folder), name, state, "", None, None)
    best = usable.iloc[0]
    return Run(
        str(results.folder),
        name,
        state,
        _settings(results, str(best["trial_id"])),
        float(best["best_val_loss"]),
        float(best["best_val_accuracy"]),
    )


def _settings(results: Results, trial_id: str) -> str:
    from vitbench.analysis.findings.arms import in_words, names_of
    from vitbench.analysis.findings.render import spelled_out

    names = [name for name in names_of(results) if results.trials[name].nunique() > 1]
    if results.trials["seed"].nunique() > 1:
        names.append("seed")
    row = results.trials.set_index("trial_id").loc[trial_id]
    return spelled_out(in_words(names, (row[name] for name in names)))


def _is_running(folder: Path) -> bool:
    """Whether a driver holds the lock of the folder's ledger."""
    ledger = folder / "ledger.jsonl"
    if not ledger.is_file():
        return False
    with ledger.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _print(runs: Sequence[Run]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for head in ("sweep", "state", "best val loss", "val acc", "best trial", "folder"):
        table.add_column(
            head, justify="right" if head in ("best val loss", "val acc") else "left", no_wrap=True
        )
    for run in runs:
        loss = "–" if run.best_val_loss is None else f"{run.best_val_loss:.4g}"
        accuracy = "–" if run.best_val_accuracy is None else f"{run.best_val_accuracy:.4f}"
        table.add_row(*map(Text, (run.name, run.state, loss, accuracy, run.best, run.path)))
    console = Console(width=10_000)
    # As wide as it takes: a path that is wrapped cannot be copied.
    console.width = console.measure(table).maximum
    console.print(table)
