"""TensorBoard, MLflow and Weights & Biases through Ray Tune's own integrations.

Those know Ray's trials, which are stacks here, so each member is shown to them as a trial of its
own: one run per trained model. TensorBoard gets every epoch as it comes; the others get a model
once, whole, when it has ended, so that a crash or a resume leaves neither half a run nor two.
"""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vitbench.plan import TrialConfig
from vitbench.plan.names import describe, settings
from vitbench.records.rows import EPOCH_COLUMNS

FAILED = ("crashed", "oom")
_PROJECT = "vitbench"
_UNSENT = 4  # runs that W&B may be writing at once; each is two processes
_LONG_NAME = 80

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where exports go.

    Attributes:
        results_dir: of the run; TensorBoard's and W&B's files, and MLflow's where no
            MLFLOW_TRACKING_URI is set, are inside.
        sweep: its name.
        fields: settings that vary, which name a run.
    """

    results_dir: Path
    sweep: str
    fields: Sequence[str]


class Member:
    """A trained model as Ray's loggers want to see a trial."""

    def __init__(self, trial: TrialConfig, place: Place) -> None:
        every = settings(trial)
        self.config = {**every, "trial": trial.trial_id, "sweep": place.sweep}
        self.evaluated_params = {k: every[k] for k in place.fields if every[k] is not None}
        self.trial_id = f"{place.results_dir.name}-{trial.trial_id}"  # unique over runs
        self.experiment_dir_name = f"{place.sweep}/{place.results_dir.name}"
        self.checkpoint = None
        text = describe([trial], place.fields)[:_LONG_NAME]
        self.name = text if text == trial.trial_id else f"{text} {trial.trial_id}"
        self.local_path = str(place.results_dir)

    def __str__(self) -> str:
        return self.name

    def init_local_path(self) -> None:
        """Make the folder of the run's files."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)


class Target(Protocol):
    """One exporter, called from its own thread alone; whatever it raises switches it off."""

    def row(self, member: Member, row: Row) -> None:
        """An epoch of a model, each once and in order."""

    def ended(self, member: Member, status: str) -> None:
        """A model has its end: one of records.rows.STATUSES."""

    def close(self) -> None:
        """No more will come."""


class TensorBoard:
    """Scalars of every epoch as it comes, settings beside the last values at the end."""

    def __init__(self, place: Place) -> None:
        from ray.tune.logger import TBXLoggerCallback

        self._callback: Any = TBXLoggerCallback()
        self._folder = place.results_dir / "tensorboard"
        self._shown: dict[Member, Member] = {}  # in its own folder
        self._old_missing: dict[Member, bool] = {}  # epochs of earlier runs

    def row(self, member: Member, row: Row) -> None:
        if member not in self._shown:
            folder = self._folder / re.sub(r"[^\w.=,+-]+", "_", member.name)
            self._shown[member] = shown = copy.copy(member)  # others read it in their threads
            shown.local_path = str(folder)
            self._old_missing[shown] = not folder.exists()
            self._callback.log_trial_start(shown)
        shown = self._shown[member]
        if self._old_missing[shown] or not row["before"]:  # a resume adds to the earlier file
            self._callback.log_trial_result(0, shown, _result(row))

    def ended(self, member: Member, status: str) -> None:
        if (shown := self._shown.pop(member, None)) is not None:
            self._callback.log_trial_end(shown)

    def close(self) -> None:
        for member in list(self._shown):
            self.ended(member, "running")


class Whole:
    """A run per model, written when the model has ended."""

    def __init__(self, callback: Any) -> None:
        self._callback = callback
        self._callback.setup()
        self._rows: dict[Member, list[Row]] = {}

    def row(self, member: Member, row: Row) -> None:
        self._rows.setdefault(member, []).append(row)

    def ended(self, member: Member, status: str) -> None:
        shown = copy.copy(member)
        shown.config = {**member.config, "status": status}
        self._callback.log_trial_start(shown)
        for row in self._rows.pop(member, []):
            self._callback.log_trial_result(0, shown, _result(row))
        self._finish(shown, status in FAILED)

    def close(self) -> None:
        self._callback.on_experiment_end([])

    def _finish(self, member: Member, failed: bool) -> None:
        self._callback.log_trial_end(member, failed)


class MLflow(Whole):
    """An experiment per sweep, in the store of MLFLOW_TRACKING_URI or in `<results>/mlflow`."""

    def __init__(self, place: Place) -> None:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            uri = (place.results_dir / "mlflow").resolve().as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer ones want to be told
        tags = {"run": place.results_dir.name}
        super().__init__(MLflowLoggerCallback(uri, experiment_name=place.sweep, tags=tags))


class Wandb(Whole):
    """Offline runs in `<results>/wandb`; WANDB_MODE=online sends them instead."""

    def __init__(self, place: Place) -> None:
        import ray
        from ray.air.integrations.wandb import WandbLoggerCallback, _WandbLoggingActor
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        class Writer(_WandbLoggingActor):
            """Ray kills it as soon as it is done, which W&B's own process may not be."""

            def run(self) -> None:
                super().run()
                self._wandb.teardown()  # returns when all is written

        mode = os.environ.setdefault("WANDB_MODE", "offline")
        folder = str(place.results_dir)
        callback = WandbLoggerCallback(project=_PROJECT, mode=mode, dir=folder)
        # As Ray would make it, but without its restarts for ever.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        remote: Any = ray.remote(num_cpus=0, scheduling_strategy=here)  # type: ignore[call-overload]
        callback._remote_logger_class = remote(Writer)
        super().__init__(callback)
        self._unsent: list[Any] = []

    def _finish(self, member: Member, failed: bool) -> None:
        future = self._callback._trial_logging_futures[member]  # Ray itself drops its errors
        super()._finish(member, failed)
        self._unsent.append(future)
        self._wait(_UNSENT)

    def close(self) -> None:
        self._wait(0)
        if self._callback._trial_logging_futures:
            super().close()

    def _wait(self, left: int) -> None:
        import ray

        while len(self._unsent) > left:
            ray.get(self._unsent.pop(0))


TARGETS: dict[str, Callable[[Place], Target]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": Wandb,
}


def _result(row: Row) -> dict[str, Any]:
    """A row of the ledger as Ray's loggers want a result; numbers that are not finite stay out."""
    values = {
        key: value
        for key, value in row.items()
        if key in EPOCH_COLUMNS and isinstance(value, int | float) and math.isfinite(value)
    }
    return {**values, "training_iteration": row["epoch"]}
