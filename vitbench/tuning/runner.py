"""Runs a sweep on Ray Tune: one Ray trial per stack, the record kept by the driver."""

from __future__ import annotations

import functools
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console

from vitbench.config import Sweep
from vitbench.outcome import describe, varying_fields
from vitbench.plan import StackPlan, TrialConfig, stack_flops
from vitbench.records.ledger import Ledger
from vitbench.tuning.callback import Interrupt, Recorder
from vitbench.tuning.cluster import Capacity, capacity
from vitbench.tuning.control import INTERRUPTED, Control
from vitbench.tuning.packing import gpus_per_stack, stacks_of
from vitbench.tuning.progress import SweepView, Tracker, progress_for
from vitbench.tuning.searcher import ListSource, PlanSearcher
from vitbench.tuning.trainable import WorkerContext, train_stack


@dataclass(frozen=True)
class Job:
    """A validated sweep with everything that its run needs."""

    sweep: Sweep  # with the data set that is really used
    trials: Sequence[TrialConfig]
    results_dir: Path
    data_dir: Path | None
    cache_dir: Path | None


@dataclass(frozen=True)
class Ending:
    """How the run ended: `interrupted` by the user, or `gave_up` with the common cause."""

    interrupted: bool
    gave_up: str | None


def run(job: Job, ledger: Ledger, console: Console) -> Ending:
    """Train every trial of the job on the connected cluster; rows arrive in the ledger.

    Raises:
        UserError: if a stack can never fit on the cluster.
    """
    room = capacity(job.sweep.resources)
    gpus = gpus_per_stack(job.sweep.resources, room.gpus)
    plans = stacks_of(job.sweep, job.trials, slots=room.slots, on_gpu=gpus > 0)
    console.print(_opening_line(job, plans, room), soft_wrap=True, highlight=False)

    for stack in plans:
        ledger.extend("trial", planned_rows(stack))

    fields = varying_fields(job.trials)
    control = Control()
    searcher = PlanSearcher(ListSource(plans))
    view = SweepView(
        total_stacks=len(plans),
        total_flops=sum(stack_flops(plan) for plan in plans),
        slots=min(room.slots, len(plans)),
    )
    shown = progress_for(console, view)
    recorder = Recorder(
        ledger=ledger,
        tracker=Tracker(view, shown),
        control=control,
        searcher=searcher,
        label=lambda stack: describe(stack.members, fields),
        errors_dir=job.results_dir / "errors",
    )
    context = WorkerContext(
        dataset=job.sweep.dataset,
        data_dir=job.data_dir,
        cache_dir=job.cache_dir,
        checkpoints_dir=job.results_dir / "checkpoints",
        threads=max(1, int(job.sweep.resources.cpus)),
        use_gpu=gpus > 0,
        every_epoch=False,
        control=control,
    )
    tuner = _tuner(job, searcher, recorder, context, gpus=gpus, slots=room.slots)
    with shown, Interrupt(lambda: recorder.request_end(INTERRUPTED)) as interrupt:
        try:
            tuner.fit()
        except KeyboardInterrupt:  # the second Ctrl-C
            return Ending(interrupted=True, gave_up=None)
    shutil.rmtree(job.results_dir / "ray", ignore_errors=True)  # Tune's working state
    return Ending(interrupted=interrupt.requested, gave_up=recorder.gave_up)


def planned_rows(stack: StackPlan) -> list[dict[str, Any]]:
    """Ledger rows that say what a stack's members are, before it starts."""
    return [
        {
            "trial_id": member.trial_id,
            "stack_id": stack.stack_id,
            "config": member.model_dump(mode="json"),
        }
        for member in stack.members
    ]


def _tuner(
    job: Job,
    searcher: PlanSearcher,
    recorder: Recorder,
    context: WorkerContext,
    *,
    gpus: float,
    slots: int,
) -> tune.Tuner:
    trainable = functools.partial(train_stack, context=context)
    resources: dict[str, Any] = {"cpu": job.sweep.resources.cpus}
    if gpus:
        resources["gpu"] = gpus
    return tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            max_concurrent_trials=slots,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.config["stack_id"]),
            trial_name_creator=lambda trial: str(trial.config["stack_id"]),
        ),
        run_config=tune.RunConfig(
            name=f"run-{uuid.uuid4().hex[:8]}",
            storage_path=str((job.results_dir / "ray").resolve()),
            callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=job.sweep.max_failures),
            checkpoint_config=tune.CheckpointConfig(),
            verbose=0,
        ),
    )


def _opening_line(job: Job, plans: Sequence[StackPlan], room: Capacity) -> str:
    hardware = f"{room.cpus:g} CPUs" + (f" and {room.gpus:g} GPUs" if room.gpus else "")
    where = f"{room.nodes} nodes with " if room.nodes > 1 else ""
    return (
        f"{len(job.trials)} trials in {len(plans)} stacks, {min(room.slots, len(plans))} side by "
        f"side on {where}{hardware}"
    )
