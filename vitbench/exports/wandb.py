"""Writes runs to Weights & Biases: a group per results folder, a run per model."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from vitbench.exports.runs import Run
from vitbench.records.types import Status

_PROJECT = "vitbench"


def write(results_dir: Path, runs: Sequence[Run]) -> tuple[str, int]:
    """Write runs to `<results>/wandb`; WANDB_MODE=online sends them instead.

    A run's id is the same every time: its folder from before is deleted first, and W&B's server
    replaces a run that has the id.

    Returns:
        Where they are, and how many were there before.
    """
    import wandb

    mode = os.environ.get("WANDB_MODE", "offline")
    folder, replaced = results_dir / "wandb", 0
    quiet = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    for run in runs:
        for old in folder.glob(f"*run-*-{glob.escape(run.id)}"):
            shutil.rmtree(old)
            replaced += 1
        sent = wandb.init(
            project=_PROJECT,
            group=run.group,
            id=run.id,
            name=run.name,
            config={**run.config, "status": run.status},
            mode=mode,
            dir=str(results_dir),
            settings=quiet,
        )
        for epoch, row in run.epochs.items():
            sent.log(row, step=epoch)
        sent.summary.update(run.outcome)
        sent.finish(exit_code=int(Status(run.status).is_failure))
    wandb.teardown()  # returns when all is written
    return str(folder) if mode == "offline" else f"W&B's project {_PROJECT}", replaced
