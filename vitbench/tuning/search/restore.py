"""A study for a results folder of a search whose own is gone or damaged."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from vitbench.config import Sweep, models_of
from vitbench.config.axes import MODEL
from vitbench.errors import UserError
from vitbench.records import tables
from vitbench.records.history import History
from vitbench.tuning.search.objective import direction
from vitbench.tuning.search.study import AGAIN, distributions


def restore_study(
    sweep: Sweep, results_dir: Path, history: History, say: Callable[[str], None] = print
) -> None:
    """Write study.db where a search was begun and its study is missing or damaged.

    It is made of the suggestions in the ledger, whose ends the source tells it then; of a folder
    that holds tables alone, from suggestions.parquet, without the values of single epochs, which
    only early stopping by Optuna would read.

    Raises:
        UserError: if neither has them: what was suggested is not known.
    """
    path, table = results_dir / "study.db", results_dir / "suggestions.parquet"
    if sweep.search.is_grid or not history.configs or _is_whole(path, sweep.name):
        return
    if not history.suggestions and not table.is_file():
        raise UserError(
            f"--resume {results_dir}: holds neither study.db nor suggestions.parquet, so what this "
            f"search has tried is not known; start a new run without --resume"
        )
    if path.exists():
        damaged = path.with_name(f"study.db.damaged-{time.time_ns()}")
        path.rename(damaged)
        say(f"study.db is damaged: it is made again from the ledger; what it was is {damaged.name}")
    for left in ("-journal", "-wal", "-shm"):  # would be laid over the new file
        path.with_name(f"study.db{left}").unlink(missing_ok=True)
    if history.suggestions:
        _write(path, sweep, _of_ledger(sweep, history))
    else:
        _write(path, sweep, _of_table(sweep, table))


def _is_whole(path: Path, name: str) -> bool:
    """Whether this is a database in order that holds a study of the name."""
    if not path.is_file():
        return False
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)
        ) as db:
            checked = db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            held = db.execute("SELECT count(*) FROM studies WHERE study_name = ?", [name])
            db.execute("SELECT count(*) FROM trials, trial_params, trial_values, version_info")
            return bool(checked and held.fetchone() == (1,))
    except sqlite3.Error:
        return False


def _of_ledger(sweep: Sweep, history: History) -> list[FrozenTrial]:
    """The suggestions as they were drawn; those that were trained or told as running ones."""
    trials = []
    space = distributions(sweep.search.space)
    if sweep.models:
        space[MODEL] = CategoricalDistribution(models_of(sweep))
    for at, drawn in enumerate(history.suggestions):
        params, reason = drawn["params"], drawn["reason"]
        # It crashed, and another suggestion stands for it since.
        if reason is None and any(
            later["params"] == params and later["reason"] is None
            for later in history.suggestions[at + 1 :]
        ):
            reason, state = "crashed, and tried again", TrialState.FAIL
        elif reason in (None, AGAIN):
            state = TrialState.RUNNING
        else:
            state = TrialState.PRUNED
        trials.append(
            create_trial(
                state=state,
                params=params,
                distributions={name: space[name] for name in params},
                user_attrs={} if reason is None else {"reason": reason},
            )
        )
    return trials


def _of_table(sweep: Sweep, table: Path) -> list[FrozenTrial]:
    """The suggestions of suggestions.parquet with their ends."""
    objectives = list(sweep.search.objectives)
    trials = []
    for row in tables.read(table, ("number", "state")).sort_values("number").to_dict("records"):
        state = TrialState[row["state"]]
        space = {
            name: distribution
            for name, distribution in distributions(sweep.search.space).items()
            # A draw that was cut short lacks settings; elsewhere an empty one is a choice.
            # A model has settings of its own, which no draw of the others has.
            if not pd.isna(row.get(name)) or None in getattr(distribution, "choices", ())
        }
        trials.append(
            create_trial(
                state=state,
                params={name: _param(row[name], space[name]) for name in space},
                distributions=space,
                user_attrs={k: row[k] for k in ("stack_id", "reason") if not pd.isna(row[k])},
                values=[row[name] for name in objectives] if state is TrialState.COMPLETE else None,
            )
        )
    return trials


def _write(path: Path, sweep: Sweep, trials: Sequence[FrozenTrial]) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    temporary = path.with_name(".study.db.tmp")
    temporary.unlink(missing_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{temporary}",
        study_name=sweep.name,
        directions=[direction(name) for name in sweep.search.objectives],
    )
    study.add_trials(trials)
    temporary.rename(path)


def _param(value: Any, distribution: BaseDistribution) -> Any:
    """What was suggested, in the type that the space has it in."""
    internal = distribution.to_internal_repr(None if pd.isna(value) else value)
    return distribution.to_external_repr(internal)
