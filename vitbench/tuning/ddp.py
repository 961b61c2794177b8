"""A stack over several workers: DistributedDataParallel under Ray Train, inside a Tune trial.

A TorchTrainer run starts a controller, its helpers and the workers: seven processes for two
workers, each with its imports. So it is started once per Tune process and trains stack after
stack, for as long as Tune reuses the process. The workers hold the CPUs and GPUs of the stack, as
one placement group; the Tune process takes none.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group_table,
    remove_placement_group,
)

from vitbench.errors import UserError, in_a_line
from vitbench.plan import StackPlan
from vitbench.records.types import StackReport
from vitbench.tuning.ray_private import is_dead, is_from_train, raised_by_worker, trainer_without
from vitbench.tuning.worker.channel import Assignment, Channel, Group, Over
from vitbench.tuning.worker.train import (
    Reporter,
    WorkerContext,
    report_to_tune,
    train_part,
)

_TRAIN_ENV = {
    # How often the controller looks after its workers: how soon a dead one is noticed.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # A process more, for a warning that nobody here waits for.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
_UNUSED_CALLBACKS = (
    "DatasetsCallback",  # Ray Data; images come from the cache
    "PlacementGroupCleanerCallback",  # see GroupCleanup
)
# A message is taken at once; this is how long a group that died goes unnoticed.
_TAKE_TIMEOUT_S = 1.0
_CLEANUP_INTERVAL_S = 0.5

# The group of this process, kept from trial to trial: Tune reuses the process, and starting a
# group takes hundreds of times as long as giving it another stack.
_group: WorkerGroup | None = None


class WorkersFailed(RuntimeError):
    """The workers of a stack ended; the message names the first cause in one line."""


def train_stack(config: dict[str, Any], *, context: WorkerContext, channel: Channel) -> None:
    """Train the stack in `config["plan"]` on several workers; the twin of worker.train's."""
    plan = StackPlan.from_json(config["plan"])
    if not context.stop.runs_here(plan.stack_id):
        return
    from vitbench.training.stack_size import fit_or_halve  # imports torch

    def run(part: StackPlan) -> bool:
        global _group
        if _group is None:
            _group = WorkerGroup(context, channel)
        try:
            return _group.train(Assignment(part, plan.stack_id))
        except BaseException:
            _group = None  # of no more use; a trial that is tried again starts a new one
            raise

    fit_or_halve(plan, run, release=lambda: None, send=report_to_tune)


class WorkerGroup:
    """The workers of one Tune process, and the TorchTrainer run in which they live."""

    def __init__(self, context: WorkerContext, channel: Channel) -> None:
        self._context = context
        self._channel = channel
        self._name = uuid.uuid4().hex[:12]
        self._owner = str(ray.get_runtime_context().get_actor_id())
        self._error: BaseException | None = None
        os.environ.update(_TRAIN_ENV)
        channel.register(self._name, Group(self._owner))
        self._thread = threading.Thread(target=self._run, name="ray-train", daemon=True)
        self._thread.start()

    def train(self, assignment: Assignment) -> bool:
        """Train a stack and report what its rank 0 reports; returns whether it came to its end.

        Raises:
            torch.OutOfMemoryError: if a worker ran out of memory.
            UserError: for a mistake of the user's that a worker met.
            WorkersFailed: if the workers ended for another reason.
        """
        self._channel.assign(self._name, assignment)
        while True:
            message = self._channel.take(self._name, timeout_s=_TAKE_TIMEOUT_S)
            if message is None:
                if not self._thread.is_alive():
                    raise _cause(self._error)
                continue
            if isinstance(message, StackReport):
                report_to_tune(message)
            self._channel.acknowledge(self._name)
            if isinstance(message, Over):
                return message.whole

    def _run(self) -> None:
        from ray import train

        from vitbench.tuning.worker import loopback

        context, notes = self._context, Path.cwd() / "train"  # in Ray's session
        backend = "nccl" if context.gpus else "gloo"
        try:
            notes.mkdir(exist_ok=True)
            trainer_without(_UNUSED_CALLBACKS)(
                _work,
                train_loop_config={
                    "context": context,
                    "channel": self._channel,
                    "name": self._name,
                    "owner": self._owner,
                    "backend": backend,
                    "meeting": notes / f"meeting-{self._name}",
                },
                torch_config=loopback.config(backend),
                scaling_config=train.ScalingConfig(
                    num_workers=context.workers,
                    use_gpu=context.gpus > 0,
                    resources_per_worker=context.bundle,
                ),
                run_config=train.RunConfig(
                    name=f"workers-{self._name}",
                    storage_path=str(notes),
                    failure_config=train.FailureConfig(max_failures=0),  # trying again is Tune's
                ),
            ).fit()
        except BaseException as error:  # handed to the thread that waits for messages
            self._error = error


def _work(config: dict[str, Any]) -> None:
    """What each worker does until its group ends: the stacks of the group, one after another."""
    from ray.train.torch import get_device

    from vitbench.training.parallel import TorchDistributed
    from vitbench.tuning.worker import loopback

    loopback.meet(config["backend"], config["meeting"])
    context: WorkerContext = config["context"]
    channel: Channel = config["channel"]
    name: str = config["name"]
    device = get_device()
    parallel = TorchDistributed(device)
    placement = get_current_placement_group()
    if parallel.rank == 0 and placement is not None:
        channel.register(name, Group(config["owner"], placement))
    number = 0
    while True:
        assigned = channel.assignment(name, number)
        number += 1
        part = assigned.part
        context.stop.runs_here(assigned.stack_id)
        reporter = Reporter(
            assigned.stack_id,
            part.shared.train.epochs,
            context,
            send=lambda report: channel.post(name, report),
        )
        with reporter.hearing_warnings():
            whole = train_part(part, context, reporter, device, parallel)
        if parallel.rank == 0:
            channel.post(name, Over(whole))


def _cause(error: BaseException | None) -> BaseException:
    """What to raise for a group that ended: the failure that brought about the others."""
    import torch
    from ray.train import WorkerGroupError

    what, why = "the workers could not be started", error
    if isinstance(error, WorkerGroupError):
        failures = {rank: raised_by_worker(e) for rank, e in sorted(error.worker_failures.items())}
        for kind in (UserError, torch.OutOfMemoryError):
            for failure in failures.values():
                if isinstance(failure, kind):
                    return failure
        # A worker that is gone explains the broken connections of the others, not they it.
        rank, why = min(failures.items(), key=lambda item: isinstance(item[1], RuntimeError))
        what = f"worker {rank} {'is gone' if is_from_train(why) else 'failed'}"
    failed = WorkersFailed(f"{what}: {in_a_line(why) if why else 'no reason was given'}")
    failed.__cause__ = error
    return failed


class GroupCleanup(tune.Callback):
    """Removes placement groups whose owner died, while Tune runs and when it ends.

    A placement group that an actor made outlives it, until the job ends. Ray Train leaves a
    detached process behind to remove it, which asks the dashboard's state API, in vain where there
    is no dashboard, or more than one Ray on the machine. The driver knows who died.
    """

    def __init__(self, channel: Channel, context: WorkerContext) -> None:
        self._channel = channel
        self._bundles = [context.bundle] * context.workers
        self._groups: dict[str, Group] = {}  # all that there were, also of a channel that died
        self._gone: set[str] = set()
        self._checked_s = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; handles stay here."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Remove the placement groups whose owner is dead; Tune's loop, many times a second."""
        if time.monotonic() - self._checked_s < _CLEANUP_INTERVAL_S:
            return
        with contextlib.suppress(ray.exceptions.RayActorError):  # the channel is started again
            self._groups.update(self._channel.groups())
        groups = {name: g for name, g in self._groups.items() if name not in self._gone}
        dead = {name: group for name, group in groups.items() if is_dead(group.owner)}
        for name, group in dead.items():
            if group.placement is not None:
                remove_placement_group(group.placement)
                self._gone.add(name)
        starting = [g for name, g in groups.items() if g.placement is None and name not in dead]
        lost = [name for name, group in dead.items() if group.placement is None]
        if lost and not starting:  # died before it could say what it holds
            self._remove_all_but([g.placement for g in groups.values() if g.placement])
            self._gone.update(lost)
        self._checked_s = time.monotonic()

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """All trials are over: remove every group that is left."""
        self._remove_all_but([])

    def _remove_all_but(self, kept: list[PlacementGroup]) -> None:
        """Remove what this job holds in the shape of a group of workers."""
        job = ray.get_runtime_context().get_job_id()
        kept_ids = {placement.id.hex() for placement in kept}
        for name, placed in placement_group_table().items():
            ours = name.endswith(job) and list(placed["bundles"].values()) == self._bundles
            if ours and name not in kept_ids and placed["state"] != "REMOVED":
                remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(name)))
