"""Writes runs to MLflow: an experiment per sweep, a run per model."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from vitbench.exports.runs import Run
from vitbench.records.types import Status

_MOST_METRICS = 1000  # in one call, by MLflow's interface


def write(results_dir: Path, runs: Sequence[Run]) -> tuple[str, int]:
    """Write runs to the store of MLFLOW_TRACKING_URI, or to `<results>/mlflow`.

    A run with the same tag `trial` is deleted first (MLflow keeps it in its trash).

    Returns:
        Where they are, and how many were there before.
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
        for at in range(0, len(metrics), _MOST_METRICS):
            client.log_batch(run_id, metrics=metrics[at : at + _MOST_METRICS])
        failed = "FAILED" if Status(run.status).is_failure else "KILLED"
        client.set_terminated(run_id, "FINISHED" if Status(run.status).is_done else failed)
    return uri, replaced
