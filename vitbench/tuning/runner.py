"""Runs a sweep on Ray Tune: one Ray trial per stack, the record kept by the driver."""

from __future__ import annotations

import functools
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from rich.console import Console

from vitbench.config import Precision, Sweep
from vitbench.data.image_set import ImageSet
from vitbench.exports.tensorboard import TensorBoard
from vitbench.plan import TrialConfig, stack_flops
from vitbench.plan.names import describe
from vitbench.plan.resume import remainder
from vitbench.plan.stacks import stacks_of
from vitbench.plan.threads import in_words
from vitbench.records import environment, tables
from vitbench.records.history import History
from vitbench.records.ledger import Ledger
from vitbench.records.types import Decided, Status
from vitbench.storage.checkpoints import Checkpoints
from vitbench.storage.place import Place
from vitbench.terminal.progress import LiveProgress, Progress, SweepView
from vitbench.tuning import ddp
from vitbench.tuning.cluster.capacity import Capacity, LiveSlots, capacity
from vitbench.tuning.cluster.precision import decide, kept, leaves_precision_open
from vitbench.tuning.cluster.storage_check import require_on_every_node
from vitbench.tuning.cluster.watch import RayObserver
from vitbench.tuning.events import StackObserver
from vitbench.tuning.observers import (
    ErrorLog,
    LedgerObserver,
    ProgressObserver,
    Retention,
    TablesObserver,
    TensorBoardObserver,
)
from vitbench.tuning.ray_private import ON_HEAD
from vitbench.tuning.recorder import Recorder
from vitbench.tuning.search.early_stopping import EarlyStopping
from vitbench.tuning.search.source import ListSource, PlanSearcher, SourceObserver, StackSource
from vitbench.tuning.search.study import StudySource
from vitbench.tuning.stack_cpus import StackCpus, threads_of
from vitbench.tuning.stall import Stalls
from vitbench.tuning.stop import (
    BudgetMeter,
    BudgetObserver,
    GivingUp,
    Interrupt,
    StopRequests,
    SweepStop,
)
from vitbench.tuning.worker.channel import Channel
from vitbench.tuning.worker.images import SharedImages
from vitbench.tuning.worker.measure_stack import StackSizes
from vitbench.tuning.worker.train import WorkerContext, train_stack
from vitbench.user_code import NO_CODE, Code

_STOPPING = (
    "Stopping: what trains now finishes its epoch and writes a checkpoint "
    "(press Ctrl-C again to stop at once)."
)


@dataclass(frozen=True)
class Job:
    """A validated sweep with everything that its run needs."""

    sweep: Sweep  # with the data set that is really used and its numbers of images
    trials: Sequence[TrialConfig]  # of a grid; empty for a search, which decides as it goes
    fields: Sequence[str]  # settings that vary, which name a stack on the screen
    results_dir: Path  # of this run, an absolute path on the driver
    images: ImageSet  # all of the data set, from the cache
    bucket: Place | None = None  # of this run, where results go to one
    code: Code = NO_CODE  # of the user's builders

    @property
    def results(self) -> Place:
        """The folder of the run as all nodes see it."""
        return self.bucket or Place(str(self.results_dir))

    @property
    def checkpoints(self) -> Checkpoints:
        """Where checkpoints are, one folder per trial."""
        return Checkpoints(self.results)


@dataclass(frozen=True)
class Ending:
    """How the run ended."""

    interrupted: bool = False  # by the user
    gave_up: str | None = None  # the common cause, where crash after crash was the same
    spent: str | None = None  # the limit of the budget that was reached


def run(job: Job, ledger: Ledger, history: History, console: Console) -> Ending:
    """Train what is left of the job on the connected cluster; rows arrive in the ledger.

    Raises:
        UserError: if a stack can never fit on the cluster, or a node cannot use the storage.
    """
    sweep = job.sweep
    cluster = capacity(sweep.resources)
    if job.bucket is not None or cluster.nodes > 1:
        require_on_every_node(job.results)
    gpus, workers = cluster.gpus_each, sweep.resources.workers
    budget = BudgetMeter(sweep.budget, history, gpus_each=gpus * workers)
    if spent := budget.exceeded():
        return Ending(spent=spent)
    on_cpus = not gpus and workers == 1
    stack_cpus = StackCpus(sweep.resources, cluster.cores, history.threads, on_cpus=on_cpus)
    decided = _decided(job, ledger, history, cluster, stack_cpus)
    if decided.precision is not None:
        text = f"precision: {decided.precision} ({decided.because})"
        console.print(text, soft_wrap=True, highlight=False)
    for name in [
        name
        for trial_id in history.configs
        if not history.is_done(trial_id)
        for name in job.checkpoints.damaged(trial_id)
    ]:
        text = f"{name} is damaged: its stack goes on from the state before, or from the start"
        console.print(text, soft_wrap=True, highlight=False, markup=False)
    precision = decided.precision or "auto"
    source = _source(job, ledger, history, cluster, stack_cpus, precision, console)
    live_slots = LiveSlots(sweep.resources, gpus_each=gpus, at_most=sweep.search.concurrency)
    searcher = PlanSearcher(source, live_slots, stack_cpus)
    slots = min(cluster.free_slots, live_slots(), source.total)
    if source.total == 0:
        return Ending()
    requests = StopRequests()
    console.print(
        _opening_line(source, slots, cluster, stack_cpus), soft_wrap=True, highlight=False
    )

    flops, recorded = None, LedgerObserver(ledger, lambda plan: threads_of(stack_cpus(plan)))
    if isinstance(source, ListSource):  # a search plans as it goes
        flops = sum(map(stack_flops, source.plans))
        for plan in source.plans:
            recorded.plan(plan)
    view = SweepView(total_stacks=source.total, known_flops=flops, slots=slots)
    shown = (LiveProgress if console.is_terminal else Progress)(console, view)
    stop = SweepStop(requests, searcher.finish, shown.say)
    limits, giving_up = BudgetObserver(budget, stop), GivingUp(stop)
    tensorboard = _tensorboard(job, ledger, history, shown.say)
    errors = ErrorLog(job.results_dir / "errors")
    observers: list[StackObserver] = [RayObserver(), errors, SourceObserver(source), limits]
    if (keep := sweep.checkpoints.keep) is not None:
        observers.append(Retention(job.checkpoints, keep, history.outcomes.values(), ledger))
    if tensorboard is not None:
        observers.append(TensorBoardObserver(tensorboard))
    progress = ProgressObserver(shown, lambda s: describe(s.members, job.fields))
    stalls = Stalls(
        sweep.stall_minutes, requests.kill, shown.say, lambda s: describe(s.members, job.fields)
    )
    observers += [TablesObserver(job.results_dir), progress, stalls]
    observers += [giving_up, stop]  # the stop last: it acts on what the others asked for
    recorder = Recorder(recorded, observers, searcher.hand_out_again, requests.over)
    context = WorkerContext(
        images=SharedImages.share(job.images, ship=cluster.nodes > 1),
        checkpoints=job.checkpoints,
        checkpoint_every_s=sweep.checkpoints.every_s,
        workers=workers,
        cpus=sweep.resources.cpus_at_least,
        gpus=gpus,
        every_epoch=sweep.search.scheduler != "none",
        stop=requests,
        compile=sweep.compile,
        precision=precision,
        evaluation=sweep.evaluation,
        code=job.code,
    )
    scheduler = _scheduler(job, source, requests)
    tuner = _tuner(job, searcher, recorder, scheduler, context)
    with shown, Interrupt(lambda: stop.request(Status.INTERRUPTED, _STOPPING)) as interrupt:
        try:
            tuner.fit()
        except KeyboardInterrupt:  # the second Ctrl-C
            return Ending(interrupted=True)
        except Exception:
            if broken := recorder.broken or searcher.broken:  # Tune has wrapped it
                raise broken from None
            raise
        finally:
            if tensorboard is not None:
                tensorboard.close()
    requests.close()
    if isinstance(source, StudySource):
        tables.write_suggestions(job.results_dir, source.suggestions())
    shutil.rmtree(job.results_dir / "ray", ignore_errors=True)  # Tune's working state
    return Ending(interrupt.requested, giving_up.cause, limits.spent)


def _decided(
    job: Job, ledger: Ledger, history: History, cluster: Capacity, stack_cpus: StackCpus
) -> Decided:
    """What holds for the whole sweep, with the reasons of now; its first run writes it down."""
    sweep, search, decided = job.sweep, job.sweep.search, Decided()
    if leaves_precision_open(sweep):
        now = decide(sweep.resources, cluster)
        decided = kept(now, history, on_gpu=cluster.gpus_each > 0)
    if not search.is_grid or search.concurrency is not None:
        stacks = min(
            search.concurrency or search.suggestions, len(job.trials) or search.suggestions
        )
        before = None if history.decided is None else history.decided.threads
        decided = replace(decided, threads=stack_cpus.plan_any(stacks, before))
    if history.decided is None:
        ledger.append("decided", **decided.to_json())
    environment.add(job.results_dir, decided=(history.decided or decided).to_json())
    return decided


def _tensorboard(
    job: Job, ledger: Ledger, history: History, say: Callable[[str], None]
) -> TensorBoard | None:
    """The live export, where the sweep asks for it; a failure is shown once and recorded."""
    if "tensorboard" not in job.sweep.exports:
        return None

    def failed(reason: str) -> None:
        ledger.append("event", event="export", exporter="tensorboard", error=reason)
        say(f"export to tensorboard failed and is off ({reason}); the results are complete without")

    return TensorBoard(job.results_dir / "tensorboard", job.fields, history.rows, failed)


def _source(
    job: Job,
    ledger: Ledger,
    history: History,
    cluster: Capacity,
    stack_cpus: StackCpus,
    precision: Precision,
    console: Console,
) -> StackSource:
    """Where stacks come from: what is left of the grid, its threads planned, or the study."""
    sweep = job.sweep
    if not sweep.search.is_grid:
        return StudySource(
            sweep,
            job.results_dir / "study.db",
            channels=job.images.channels,
            outputs=1 if sweep.train.label is not None else job.images.outputs,
            history=history,
            record=lambda drawn: ledger.append("suggestion", **drawn),
        )
    left = remainder(job.trials, history, job.checkpoints.state_epochs)
    if history.configs:
        console.print(left.text(), highlight=False)
    slots, gpus, auto = cluster.free_slots, cluster.gpus_each, None
    if sweep.stack_size == "auto":
        sizes = StackSizes.measured(
            sweep,
            left.new,
            job.images,
            slots=slots,
            gpus_each=gpus,
            precision=precision,
            code=job.code,
        )
        auto = sizes.members
        if sizes.message:
            console.print(sizes.message, highlight=False, soft_wrap=True)
    new = stacks_of(sweep, left.new, slots=slots, on_gpu=gpus > 0, auto=auto)
    if sweep.search.concurrency is None:
        stack_cpus.plan(new)
    if larger := stack_cpus.too_many(left.stacks):
        text = (
            f"{len(larger)} stacks were planned with more threads than a node here has CPUs; "
            "trained with fewer, their numbers differ by rounding"
        )
        console.print(text, highlight=False, soft_wrap=True)
    return ListSource([*left.stacks, *new])


def _scheduler(job: Job, source: StackSource, requests: StopRequests) -> TrialScheduler | None:
    """ASHA as requests to stop, where the sweep asks for it."""
    search = job.sweep.search
    if search.scheduler == "none" or not isinstance(source, StudySource):  # a grid is refused it
        return None
    inner = ASHAScheduler(
        metric="objective",
        mode="min" if source.minimises else "max",
        time_attr="epoch",
        max_t=job.sweep.train.epochs,
        grace_period=search.grace_epochs,
        reduction_factor=search.reduction_factor,
    )
    early_stopping = EarlyStopping(inner, requests, source.objective_now)
    for plan, epochs in source.past():
        early_stopping.replay(plan, epochs)
    return early_stopping


def _tuner(
    job: Job,
    searcher: PlanSearcher,
    recorder: Recorder,
    scheduler: TrialScheduler | None,
    context: WorkerContext,
) -> tune.Tuner:
    callbacks: list[tune.Callback] = [recorder]
    if context.workers > 1:
        channel = Channel()
        callbacks.append(ddp.GroupCleanup(channel, context))
        trainable = functools.partial(ddp.train_stack, context=context, channel=channel)
        # What it trains with belongs to its workers, which may be on machines that vanish.
        resources: Any = {"cpu": 0, **ON_HEAD}
    else:
        trainable = functools.partial(train_stack, context=context)

        def resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
            return tune.PlacementGroupFactory([replace(context, cpus=config["cpus"]).bundle])

    return tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.config["stack_id"]),
            trial_name_creator=lambda trial: str(trial.config["stack_id"]),
        ),
        run_config=tune.RunConfig(
            name=f"run-{uuid.uuid4().hex[:8]}",
            storage_path=str((job.results_dir / "ray").resolve()),
            callbacks=callbacks,
            failure_config=tune.FailureConfig(max_failures=job.sweep.max_failures),
            verbose=0,
        ),
    )


def _opening_line(source: StackSource, slots: int, cluster: Capacity, stack_cpus: StackCpus) -> str:
    hardware = f"{cluster.cpus:g} CPUs" + (f" and {cluster.gpus:g} GPUs" if cluster.gpus else "")
    where = f"{cluster.nodes} nodes with " if cluster.nodes > 1 else ""
    first = f"up to {source.total} stacks"
    if isinstance(source, ListSource):
        trials = sum(plan.size for plan in source.plans)
        first = f"{trials} trials" + (f" in {source.total} stacks" if trials > source.total else "")
        hardware += f", {in_words([threads_of(stack_cpus(plan)) for plan in source.plans])}"
    return f"{first}, {slots} side by side on {where}{hardware}"
