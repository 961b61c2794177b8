"""Stacks on two workers under Ray Train: curves of one worker, crashes, resources given back."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
from ray.util.placement_group import placement_group_table
from rich.console import Console
from sweep_runs import TIME_COLUMNS, actor_processes, beside, listens_on, wait_until

from vitbench import data
from vitbench.config import Sweep
from vitbench.plan import expand
from vitbench.records import tables
from vitbench.records.history import History
from vitbench.records.ledger import Ledger
from vitbench.tuning import runner

pytestmark = [pytest.mark.long, pytest.mark.ray]

CPUS = 2


def sweep(**changes: Any) -> Sweep:
    """A few small models on some of the digits; 37 images in batches of 8 leave a ragged last."""
    settings: dict[str, Any] = {
        "name": "ddp",
        "dataset": {"name": "digits"},
        "model": {"patch_grid": 2, "depth": 1, "heads": 2, "width": 16},
        "train": {
            "epochs": 6,
            "batch_size": 8,
            "train_images": 37,
            "val_images": 20,
            "test_images": 20,
            "precision": "float32",  # two workers are compared with one, to rounding
        },
        "search": {"space": {"lr": [0.001, 0.01]}},
        "resources": {"workers": 2, "cpus": CPUS / 2, "gpus": 0},
        "checkpoints": {"every_s": 0},
        "stack_size": 1,
    }
    return Sweep.model_validate({**settings, **changes})


def run(asked: Sweep, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run a sweep on the Ray that is there; returns its tables."""
    folder.mkdir()
    trials = expand(asked) if asked.search.is_grid else []
    job = runner.Job(
        sweep=asked,
        trials=trials,
        fields=["lr"],
        results_dir=folder,
        images=data.load(asked.dataset, None),
    )
    with Ledger(folder / tables.LEDGER) as ledger:
        ledger.append("run", argv=[], scale="test")
        runner.run(job, ledger, History(), Console(quiet=True))
    return tables.build(folder)


def training_processes() -> list[int]:
    """Ids of the processes that train for Ray Train now."""
    return actor_processes("RayTrainWorker")


def test_two_workers_killed_once_give_the_tables_of_one(local_ray: None, tmp_path: Path) -> None:
    """A worker dies by SIGKILL mid-trial: the trial goes on, and its numbers are one worker's.

    Until then nothing of the workers, torch's store and gloo among them, listens beyond loopback.
    """
    one = {"search": {"space": {"lr": [0.01]}}}
    solo_trials, solo_epochs = run(
        sweep(**one, resources={"workers": 1, "gpus": 0}), tmp_path / "solo"
    )
    log = tmp_path / "pair" / tables.LEDGER
    killed: list[int] = []
    listening: set[str] = set()

    def kill_one() -> None:
        listening.update(listens_on(training_processes()))
        killed.append(training_processes()[1])
        os.kill(killed[0], signal.SIGKILL)

    with beside(lambda: log.is_file() and '"epoch": 2,' in log.read_text(), kill_one):
        trials, epochs = run(sweep(**one), tmp_path / "pair")

    assert killed and listening == {"127.0.0.1"}
    events = log.read_text().splitlines()
    retries = [line for line in events if '"event": "retry"' in line]
    assert len(retries) == 1 and "is gone" in retries[0], retries
    assert list(trials["status"]) == ["finished"]
    # At most the epoch that it died in, reported but not yet saved, is trained twice.
    rows = [line for line in events if '"kind": "epoch"' in line]
    assert len(epochs) == 6 <= len(rows) <= 6 + 1
    for one, two, keys in (
        (solo_trials, trials, ["trial_id"]),
        (solo_epochs, epochs, ["trial_id", "epoch"]),
    ):
        numbers = one.select_dtypes("number").columns.difference(TIME_COLUMNS)
        pd.testing.assert_frame_equal(
            one.sort_values(keys)[numbers].reset_index(drop=True),
            two.sort_values(keys)[numbers].reset_index(drop=True),
            rtol=1e-3,
        )


def test_after_early_stopped_trials_the_cluster_is_free_again(
    local_ray: None, tmp_path: Path
) -> None:
    """At least 20 trials on two workers are stopped early; every CPU comes back at once."""
    wait_until(lambda: ray.available_resources().get("CPU") == CPUS, 20)
    search = {
        "method": "random",
        "space": {"lr": {"low": 1e-5, "high": 1.0, "log": True}},
        "suggestions": 36,
        "scheduler": "asha",
        "reduction_factor": 4,
    }
    train = {**sweep().train.model_dump(), "epochs": 4}
    trials, _ = run(sweep(search=search, train=train), tmp_path / "search")
    stopped = trials[trials["status"] == "stopped"]
    assert len(trials) == 36 and len(stopped) >= 20
    wait_until(lambda: ray.available_resources().get("CPU") == CPUS, 10)
    states = {group["state"] for group in placement_group_table().values()}
    assert states <= {"REMOVED"}
    assert not training_processes()
