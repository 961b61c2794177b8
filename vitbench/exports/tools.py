"""Writes a run per model to MLflow, Weights & Biases or Trackio, from a results folder's tables.

The functions `to_...` return where the runs are, and how many of them were there before.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import io
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from vitbench.analysis.results import load
from vitbench.errors import UserError, in_a_line
from vitbench.exports.runs import Run, runs_of
from vitbench.records.types import Status

_MLFLOW_MOST_METRICS = 1000  # in one call, by MLflow's interface
_WANDB_PROJECT = "vitbench"


def to_mlflow(results_dir: Path, runs: Sequence[Run]) -> tuple[str, int]:
    """An experiment per sweep, in the store of MLFLOW_TRACKING_URI or in `<results>/mlflow`.

    A run with the same tag `trial` is deleted first (MLflow keeps it in its trash).
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        uri = (results_dir / "mlflow").as_uri()
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer ones want to be told
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # by default it tries for minutes
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client = MlflowClient(uri)
    replaced = 0
    for run in runs:
        name = run.config["sweep"]
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name)
        for old in client.search_runs([experiment], f"tags.trial = '{run.id}'"):
            client.delete_run(old.info.run_id)
            replaced += 1
        tags = {"trial": run.id, "group": run.group, "status": run.status}
        run_id = client.create_run(experiment, tags=tags, run_name=run.name).info.run_id
        now_ms, last = int(time.time() * 1000), max(run.epochs, default=0)
        steps = [*run.epochs.items(), (last, run.outcome)]
        metrics = [Metric(k, v, now_ms, step) for step, row in steps for k, v in row.items()]
        client.log_batch(run_id, params=[Param(k, str(v)) for k, v in run.config.items()])
        for at in range(0, len(metrics), _MLFLOW_MOST_METRICS):
            client.log_batch(run_id, metrics=metrics[at : at + _MLFLOW_MOST_METRICS])
        failed = "FAILED" if Status(run.status).is_failure else "KILLED"
        client.set_terminated(run_id, "FINISHED" if Status(run.status).is_done else failed)
    return uri, replaced


def to_wandb(results_dir: Path, runs: Sequence[Run]) -> tuple[str, int]:
    """A group per results folder, in `<results>/wandb`; WANDB_MODE=online sends runs instead.

    A run's id is the same every time: its folder from before is deleted first, and W&B's server
    replaces a run that has the id.
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
            project=_WANDB_PROJECT,
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
    return str(folder) if mode == "offline" else f"W&B's project {_WANDB_PROJECT}", replaced


def to_trackio(results_dir: Path, runs: Sequence[Run]) -> tuple[str, int]:
    """A project per sweep, in the database of TRACKIO_DIR or `<results>/trackio`; sends nothing.

    Runs that the database has of the same models are deleted first.
    """
    folder = os.environ.setdefault("TRACKIO_DIR", str(results_dir / "trackio"))
    for remote in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        os.environ.pop(remote, None)  # what is not local cannot be replaced; `trackio sync` sends
    import trackio

    replaced = 0
    with contextlib.redirect_stdout(io.StringIO()):  # it prints three lines per run
        for project in {run.config["sweep"] for run in runs}:
            with contextlib.suppress(ValueError):  # the project is new
                ours = {run.id for run in runs}
                for old in list(trackio.Api().runs(project)):
                    if (old.config or {}).get("run") in ours:
                        replaced += old.delete()
        for run in runs:
            sent = trackio.init(
                project=run.config["sweep"],
                name=run.name,
                group=run.group,
                config={**run.config, **run.outcome, "status": run.status, "run": run.id},
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            # Settings are written with the first row, also where a model crashed before it had one.
            for epoch, row in (run.epochs or {0: {}}).items():
                sent.log(row, step=epoch)
            trackio.finish()
    return folder, replaced


# TensorBoard is written while models train, the others from the tables.
FROM_TABLES = {"mlflow": to_mlflow, "wandb": to_wandb, "trackio": to_trackio}
PACKAGES = {"tensorboard": "tensorboardX", **{name: name for name in FROM_TABLES}}


def require(names: Sequence[str]) -> None:
    """Check that the package of each tool is installed, without importing it.

    Raises:
        UserError: if one is not.
    """
    for name in names:
        spec = importlib.util.find_spec(PACKAGES[name])
        if spec is None or spec.origin is None:  # a folder of that name is no package
            raise UserError(
                f"exports: {name} needs the package {PACKAGES[name]}, which is not installed; "
                f"pip install 'vitbench[{name}]', or leave it out"
            )


def export(name: str, results_dir: Path) -> str:
    """Write all models of a results folder to a tool of FROM_TABLES, in place of earlier exports.

    Returns:
        A line for the user: how many runs, how many replaced, where they are.

    Raises:
        UserError: if the folder holds no results.
        Exception: whatever the tool raises.
    """
    runs = runs_of(load(results_dir))
    where, replaced = FROM_TABLES[name](results_dir.resolve(), runs)
    again = f", {replaced} of them written before and replaced" if replaced else ""
    return f"exported to {name}: {len(runs)} runs{again}: {where}"


def export_each(names: Sequence[str], results_dir: Path) -> list[str]:
    """Write a results folder to each of these tools but TensorBoard; a line for each.

    A failure is a line as well.
    """
    lines = []
    for name in dict.fromkeys(names):
        if name in FROM_TABLES:
            try:
                lines.append(export(name, results_dir))
            except Exception as error:  # whatever it is, the results are complete without
                lines.append(
                    f"export to {name} failed ({in_a_line(error)}); the results are complete "
                    f"without; to try again: vitbench export {results_dir} --to {name}"
                )
    return lines
