"""A study for a results folder of a search that holds the table of suggestions alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState, create_trial

from vitbench.config import Sweep
from vitbench.errors import UserError
from vitbench.records import tables
from vitbench.records.history import History
from vitbench.tuning.search.objective import direction
from vitbench.tuning.search.study import distributions


def restore_study(sweep: Sweep, results_dir: Path, history: History) -> None:
    """Write study.db from suggestions.parquet where a search was begun and its study is missing.

    Values of single epochs, which only early stopping by Optuna would read, are not restored.

    Raises:
        UserError: if suggestions.parquet is missing, too: what was suggested is not known.
    """
    path, table = results_dir / "study.db", results_dir / "suggestions.parquet"
    if sweep.search.is_grid or path.is_file() or not history.configs:
        return
    if not table.is_file():
        raise UserError(
            f"--resume {results_dir}: holds neither study.db nor suggestions.parquet, so what this "
            f"search has tried is not known; start a new run without --resume"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
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
    temporary = path.with_name(".study.db.tmp")
    temporary.unlink(missing_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{temporary}",
        study_name=sweep.name,
        directions=[direction(name) for name in objectives],
    )
    study.add_trials(trials)
    temporary.rename(path)


def _param(value: Any, distribution: BaseDistribution) -> Any:
    """What was suggested, in the type that the space has it in."""
    internal = distribution.to_internal_repr(None if pd.isna(value) else value)
    return distribution.to_external_repr(internal)
