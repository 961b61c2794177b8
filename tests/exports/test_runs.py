"""Runs from tables: every model that began to train, under one name for all tools."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import result_folder

from vitbench.analysis.results import load
from vitbench.exports.runs import run_name, runs_of

SHIPPED = Path(__file__).parents[2] / "analysis" / "data"


def test_a_run_has_the_settings_the_epochs_and_the_end_of_its_model(tmp_path: Path) -> None:
    """What is only planned is no run; what is not a finite number is no metric."""
    folder = result_folder.make(tmp_path / "run-1", until=25)  # of 30; from 25 on, lr is 1
    runs = runs_of(load(folder))
    trials = pd.read_csv(folder / "trials.csv")
    assert [run.config["trial"] for run in runs] == list(trials["trial_id"][:25])
    first, diverged = runs[0], runs[-1]
    assert first.id == f"run-1-{trials['trial_id'][0]}" and first.group == "made/run-1"
    assert first.name == f"lr=0.0001 seed=0 {trials['trial_id'][0]}"
    for name, value in {"lr": 1e-4, "dataset": "digits", "planned_epochs": 3, "depth": 1}.items():
        assert first.config[name] == value
    assert first.config["momentum"] == 0.9  # the ledger's alone: the table has no such column
    assert "label" not in first.config  # not set
    epochs = pd.read_csv(folder / "epochs.csv")
    losses = epochs[epochs["trial_id"] == trials["trial_id"][0]]["val_loss"]
    assert [row["val_loss"] for row in first.epochs.values()] == list(losses)
    assert list(first.epochs) == [1, 2, 3]
    assert first.status == "finished" and first.outcome["best_epoch"] == 3
    assert "val_loss" not in first.outcome  # the last epoch's
    assert diverged.config["lr"] == 1.0 and diverged.status == "diverged"
    assert "val_loss" not in diverged.epochs[1] and diverged.epochs[1]["epoch_s"] == 0.5


def test_results_without_a_ledger_have_the_settings_of_the_table() -> None:
    """Shipped results hold tables alone."""
    folder = SHIPPED / "mnist_arch"
    runs = runs_of(load(folder))
    trials = pd.read_parquet(folder / "trials.parquet")
    assert len(runs) == len(trials) == len({run.name for run in runs})
    for run, row in zip(runs, trials.itertuples(), strict=True):
        assert (run.config["lr"], run.config["depth"]) == (row.lr, row.depth)
        assert f"depth={row.depth} " in run.name and len(run.epochs) == row.epochs


def test_a_long_name_keeps_its_trial_id() -> None:
    """The id is what tells two runs apart whose first settings are the same."""
    name = run_name("0123abcd", {"label": "x" * 200}, ["label"])
    assert len(name) < 100 and name.endswith(" 0123abcd")
    assert run_name("0123abcd", {"matched": None}, ["matched"]) == "0123abcd"
