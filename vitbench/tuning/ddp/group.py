"""A stack over several workers: DistributedDataParallel under Ray Train, inside a Tune trial.

A TorchTrainer run starts a controller, its helpers and the workers: seven processes for two
workers, each with its imports. So it is started once per Tune process and trains stack after
stack, for as long as Tune reuses the process. The workers hold the CPUs and GPUs of the stack, as
one placement group; the Tune process takes none.
"""

from __future__ import annotations

import os
import threading
import uuid
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.util.placement_group import get_current_placement_group

from vitbench.errors import UserError, in_a_line
from vitbench.plan import StackPlan
from vitbench.tuning.ray_private import is_from_train, raised_by_worker, trainer_without
from vitbench.tuning.worker.channel import Channel
from vitbench.tuning.worker.train import Reporter, Send, WorkerContext, fit_or_halve, train_part

_TRAIN_ENV = {
    # How often the controller looks after its workers: how soon a dead one is noticed.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # A process more, for a warning that nobody here waits for.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
_UNUSED_CALLBACKS = (
    "DatasetsCallback",  # Ray Data; images come from the cache
    "PlacementGroupCleanerCallback",  # see cleanup.py
)
# A message is taken at once; this is how long a group that died goes unnoticed.
_TAKE_TIMEOUT_S = 1.0

# The group of this process, kept from trial to trial: Tune reuses the process, and starting a
# group takes hundreds of times as long as giving it another stack.
_group: WorkerGroup | None = None


class WorkersFailed(RuntimeError):
    """The workers of a stack ended; the message names the first cause in one line."""


def train_stack(config: dict[str, Any], *, context: WorkerContext) -> None:
    """Train the stack in `config["plan"]` on several workers; the twin of worker.train's."""
    plan = StackPlan.from_json(config["plan"])

    def run(part: StackPlan) -> bool:
        global _group
        if _group is None:
            _group = WorkerGroup(context)
        try:
            return _group.train(part, plan.stack_id, tune.report)
        except BaseException:
            _group = None  # of no more use; a trial that is tried again starts a new one
            raise

    fit_or_halve(plan, run, release=lambda: None, send=tune.report)


class WorkerGroup:
    """The workers of one Tune process, and the TorchTrainer run in which they live."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._channel = _channel(context)
        self._id = uuid.uuid4().hex[:12]
        self._error: BaseException | None = None
        os.environ.update(_TRAIN_ENV)
        self._channel.announce(self._id, str(ray.get_runtime_context().get_actor_id()))
        self._thread = threading.Thread(target=self._run, name="ray-train", daemon=True)
        self._thread.start()

    def train(self, plan: StackPlan, stack_id: str, report: Send) -> bool:
        """Train a stack and hand on what its rank 0 reports; returns whether it came to its end.

        Raises:
            torch.OutOfMemoryError: if a worker ran out of memory.
            UserError: for a mistake of the user's that a worker met.
            WorkersFailed: if the workers ended for another reason.
        """
        self._channel.assign(self._id, plan.to_json(), stack_id)
        while True:
            message = self._channel.take(self._id, timeout_s=_TAKE_TIMEOUT_S)
            if message is None:
                if not self._thread.is_alive():
                    raise _cause(self._error)
                continue
            if "rows" in message:
                report(message)
            self._channel.acknowledge(self._id)
            if "whole" in message:
                return bool(message["whole"])

    def _run(self) -> None:
        from ray import train
        from ray.train.torch import TorchConfig

        context = self._context
        try:
            trainer_without(_UNUSED_CALLBACKS)(
                _work,
                train_loop_config={"context": context, "group": self._id},
                torch_config=TorchConfig(backend="nccl" if context.gpus else "gloo"),
                scaling_config=train.ScalingConfig(
                    num_workers=context.workers,
                    use_gpu=context.gpus > 0,
                    resources_per_worker=context.bundle,
                ),
                run_config=train.RunConfig(
                    name=f"workers-{self._id}",
                    storage_path=str(Path.cwd() / "train"),  # Train's own notes, in Ray's session
                    failure_config=train.FailureConfig(max_failures=0),  # trying again is Tune's
                ),
            ).fit()
        except BaseException as error:  # handed to the thread that waits for messages
            self._error = error


def _work(config: dict[str, Any]) -> None:
    """What each worker does until its group ends: the stacks of the group, one after another."""
    from ray.train.torch import get_device

    from vitbench.training.parallel import TorchDistributed

    context: WorkerContext = config["context"]
    group: str = config["group"]
    channel = _channel(context)
    device = get_device()
    parallel = TorchDistributed(device)
    placement = get_current_placement_group()
    if parallel.rank == 0 and placement is not None:
        channel.placed(group, placement)
    number = 0
    while True:
        plan, stack_id = channel.assignment(group, number)
        number += 1
        part = StackPlan.from_json(plan)
        reporter = Reporter(
            stack_id,
            part.shared.train.epochs,
            context,
            send=lambda message: channel.post(group, message),
        )
        whole = train_part(part, context, reporter, device, parallel)
        if parallel.rank == 0:
            channel.post(group, {"whole": whole})


def _channel(context: WorkerContext) -> Channel:
    if context.channel is None:
        raise ValueError("several workers need a channel")
    return context.channel


def _cause(error: BaseException | None) -> BaseException:
    """What to raise for a group that ended: the failure that brought about the others."""
    import torch
    from ray.train import WorkerGroupError

    if not isinstance(error, WorkerGroupError):
        return _failed("the workers could not be started", error)
    failures = [(rank, raised_by_worker(e)) for rank, e in sorted(error.worker_failures.items())]
    for kind in (UserError, torch.OutOfMemoryError):
        for _, failure in failures:
            if isinstance(failure, kind):
                return failure
    # A worker that is gone explains the broken connections of the others, not they it.
    rank, failure = min(failures, key=lambda item: isinstance(item[1], RuntimeError))
    gone = is_from_train(failure)
    return _failed(f"worker {rank} {'is gone' if gone else 'failed'}", failure, error)


def _failed(
    what: str, why: BaseException | None, whole: BaseException | None = None
) -> WorkersFailed:
    failed = WorkersFailed(f"{what}: {in_a_line(why) if why else 'no reason was given'}")
    failed.__cause__ = whole or why
    return failed
