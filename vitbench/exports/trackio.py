"""Writes runs to Trackio's local database: a project per sweep, a run per model."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

from vitbench.exports.runs import Run


def write(results_dir: Path, runs: Sequence[Run]) -> tuple[str, int]:
    """Write runs to the folder of TRACKIO_DIR, or to `<results>/trackio`; nothing is sent.

    Runs that the database has of the same models are deleted first.

    Returns:
        Where they are, and how many were there before.
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
