"""One stack as a Tune function: load the images, train, report rows, end when asked."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ray import tune

from vitbench.config import Evaluation, Precision
from vitbench.data import subsets
from vitbench.plan import StackPlan
from vitbench.records.types import EpochRow, StackReport, Status, TrialOutcome
from vitbench.storage.checkpoints import Checkpoints
from vitbench.tuning.stack_cpus import threads_of
from vitbench.tuning.stop import StopRequests
from vitbench.tuning.worker.images import SharedImages
from vitbench.user_code import NO_CODE, Code

if TYPE_CHECKING:
    import torch

    from vitbench.training.engine import EpochReport
    from vitbench.training.parallel import Parallel
    from vitbench.training.speedup.compiling import When

# Reports closer together than this are sent as one; Tune's loop handles some tens a second.
_MIN_REPORT_INTERVAL_S = 0.2


@dataclass(frozen=True)
class WorkerContext:
    """What every stack of a sweep shares; small, travels once per trial."""

    images: SharedImages
    checkpoints: Checkpoints
    checkpoint_every_s: float
    workers: int
    cpus: float  # of one worker
    gpus: float
    every_epoch: bool  # report each epoch by itself: early stopping looks at every one
    stop: StopRequests
    evaluation: Evaluation
    compile: When = False
    precision: Precision = "auto"  # what `train.precision: auto` stands for in this sweep
    code: Code = NO_CODE  # of the user's builders

    @property
    def bundle(self) -> dict[str, float]:
        """What Ray reserves for one worker."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


# Takes a report of a stack, and returns once the driver knows it.
Send = Callable[[StackReport], None]


def report_to_tune(report: StackReport) -> None:
    """Hand a report to Tune, whose loop on the driver tells the recorder."""
    tune.report(report.to_json())


class _Collecting(logging.Handler):
    """Puts warnings into a list, a line each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(" ".join(record.getMessage().split()))


class Reporter:
    """Sends rows to the driver, a few epochs at a time where epochs are short.

    `stack_id` is that of the stack as the driver knows it, `last_epoch` the one whose rows travel
    with the outcome.
    """

    def __init__(self, stack_id: str, last_epoch: int, context: WorkerContext, send: Send) -> None:
        self.stack_id = stack_id
        self._last_epoch = last_epoch
        self._context = context
        self._send = send
        self._rows: list[EpochRow] = []
        self._warnings: list[str] = []
        self._last_sent_s = 0.0
        self._epoch = 0
        self.reason: Status | None = None

    def __call__(self, epoch: EpochReport) -> bool:
        self._rows.extend(epoch.rows)
        self._epoch = epoch.epoch
        now_s = time.monotonic()
        # Rows that a state covers must be in the ledger first: a resume does not repeat them.
        due = epoch.checkpoint or now_s - self._last_sent_s >= _MIN_REPORT_INTERVAL_S
        if epoch.epoch == self._last_epoch or not (due or self._context.every_epoch):
            return True  # the rows of the last epoch travel with the outcome
        self._send_rows(images_per_s=epoch.images_per_s)
        self._last_sent_s = now_s
        self.reason = self._context.stop.reason_to_end(self.stack_id)
        return self.reason is None

    def finish(self, outcomes: Iterable[TrialOutcome]) -> None:
        """Send what is left together with the outcome of each member."""
        self._send_rows(outcomes=tuple(outcomes))

    @contextlib.contextmanager
    def hearing_warnings(self) -> Iterator[None]:
        """What vitbench warns of in the block goes to the driver with the next report.

        A worker's own log is a file that nobody reads.
        """
        package, handler = logging.getLogger("vitbench"), _Collecting(self._warnings)
        package.addHandler(handler)
        try:
            yield
        finally:
            package.removeHandler(handler)

    def _send_rows(self, **more: Any) -> None:
        rows, self._rows = tuple(self._rows), []
        warnings = tuple(self._warnings)
        self._warnings.clear()
        self._send(StackReport(epoch=self._epoch, rows=rows, warnings=warnings, **more))


def train_stack(config: dict[str, Any], *, context: WorkerContext) -> None:
    """Train the stack in `config["plan"]`; its outcome rows come with the last report."""
    plan = StackPlan.from_json(config["plan"])
    if not context.stop.runs_here(plan.stack_id):
        return
    import torch  # once per worker process: actors are reused between trials

    from vitbench.training.stack_size import fit_or_halve

    device = torch.device("cuda" if context.gpus else "cpu")
    context = replace(context, cpus=config["cpus"])
    reporter = Reporter(plan.stack_id, plan.shared.train.epochs, context, report_to_tune)
    release = torch.cuda.empty_cache if context.gpus else lambda: None
    with reporter.hearing_warnings():
        fit_or_halve(
            plan, lambda part: train_part(part, context, reporter, device), release, report_to_tune
        )


def train_part(
    part: StackPlan,
    context: WorkerContext,
    reporter: Reporter,
    device: torch.device,
    parallel: Parallel | None = None,
) -> bool:
    """Train a stack (or a part of it) in this process; returns whether it came to its end.

    `parallel` is this worker's place among those of the stack; rank 0 alone uses the reporter.
    """
    import torch

    from vitbench.training.engine import fit
    from vitbench.training.parallel import SOLO

    parallel = parallel or SOLO
    context.code.use()
    # A reused process keeps what the trial before it set.
    threads = threads_of(context.cpus)
    torch.set_num_threads(threads)
    # Below 1e-38 a processor computes many times slower. Gradients of a model that collapses at a
    # high learning rate get there: its backward pass takes three times as long.
    torch.set_flush_denormal(True)
    os.environ["OMP_NUM_THREADS"] = str(threads)

    images = subsets.cut(context.images.open(), part.shared.train)
    context.checkpoints.require_results_folder()
    result = fit(
        part,
        images,
        device=device,
        report=reporter,
        store=context.checkpoints,
        parallel=parallel,
        checkpoint_every_s=context.checkpoint_every_s,
        compile=context.compile,
        precision=context.precision,
        evaluation=context.evaluation,
    )
    if parallel.rank == 0:
        status = (reporter.reason or Status.STOPPED) if result.stopped else Status.FINISHED
        reporter.finish(
            replace(
                outcome,
                stack_id=reporter.stack_id,  # as planned, whatever part this is
                status=status if outcome.status is Status.FINISHED else outcome.status,
            )
            for outcome in result.trials
        )
        if status.is_done:  # and recorded: nobody will go on from its states
            context.checkpoints.keep_only([member.trial_id for member in part.members], None)
    return not result.stopped
