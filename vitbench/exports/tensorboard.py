"""Writes TensorBoard's files while a sweep runs: a run per model, a point per epoch."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitbench.errors import in_a_line
from vitbench.exports.runs import finite, run_name
from vitbench.plan import StackPlan
from vitbench.plan.names import settings
from vitbench.records.types import EpochRow, TrialOutcome


class TensorBoard:
    """Scalars of each epoch as it comes; settings and the best epoch's scores at a model's end.

    No method raises: after the first failure they do nothing. Files are written by tensorboardX,
    which needs protobuf alone, with the writer below its SummaryWriter: that one writes in a
    thread, which a full disk ends silently, and its queue of ten then blocks the sweep.
    """

    def __init__(
        self,
        folder: Path,
        varying: Sequence[str],
        before: Callable[[str], Mapping[int, EpochRow]],
        failed: Callable[[str], None],
    ) -> None:
        """Nothing is written yet.

        Args:
            folder: of the event files; each model gets a folder inside.
            varying: settings that name a run.
            before: rows of a trial's earlier runs by epoch, which a model that goes on has too.
            failed: called at most once, with the reason in a line.
        """
        self._folder, self._varying = folder, varying
        self._before, self._failed = before, failed
        self._off = False
        self._writers: dict[str, Any] = {}
        self._last_epoch: dict[str, int] = {}

    def started(self, plan: StackPlan) -> None:
        """A stack starts, or starts again; models that are new get their earlier epochs first."""
        self._try(lambda: self._open(plan))

    def epochs(self, rows: Sequence[EpochRow]) -> None:
        """Epochs of a stack's members; one that was written before is passed over."""
        self._try(lambda: self._write(rows))

    def ended(self, plan: StackPlan, outcomes: Sequence[TrialOutcome]) -> None:
        """Models have an end; one that only pauses, to go on with a resume, has none yet."""
        self._try(lambda: self._end(plan, outcomes))

    def close(self) -> None:
        """The sweep is over."""
        for trial_id in list(self._writers):
            self._try(self._writers.pop(trial_id).close)

    def _try(self, call: Callable[[], object]) -> None:
        if self._off:
            return
        try:
            call()
        except Exception as error:  # whatever it is, the sweep goes on without this export
            self._off = True
            self._failed(in_a_line(error))

    def _open(self, plan: StackPlan) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        for member in plan.members:
            trial_id = member.trial_id
            if trial_id in self._writers:
                continue
            name = run_name(trial_id, settings(member), self._varying)
            folder = self._folder / re.sub(r"[^\w.=,+-]+", "_", name)
            is_new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            # TensorBoard reads files in the order of their names, which tell seconds by themselves.
            self._writers[trial_id] = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
            old = self._before(trial_id)
            if is_new:
                self._last_epoch[trial_id] = 0
                self._write([old[epoch] for epoch in sorted(old)])
            self._last_epoch[trial_id] = max(old, default=0)

    def _write(self, rows: Sequence[EpochRow]) -> None:
        for row in rows:
            if row.epoch > self._last_epoch[row.trial_id]:
                self._last_epoch[row.trial_id] = row.epoch
                self._scalars(row.trial_id, finite(row.to_json()))

    def _end(self, plan: StackPlan, outcomes: Sequence[TrialOutcome]) -> None:
        from tensorboardX.summary import hparams

        for outcome in outcomes:
            trial_id = outcome.trial_id
            if outcome.status.is_pause or trial_id not in self._writers:
                continue
            every = settings(next(m for m in plan.members if m.trial_id == trial_id))
            varied = {k: every[k] for k in self._varying if every[k] is not None}
            best = finite({k: v for k, v in outcome.to_json().items() if k.startswith("best_")})
            for summary in hparams({**varied, "status": str(outcome.status)}, best):
                self._event(trial_id, summary)
            self._scalars(trial_id, best)
            self._writers.pop(trial_id).close()

    def _scalars(self, trial_id: str, values: Mapping[str, float]) -> None:
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._event(trial_id, scalar(name, value))
        self._writers[trial_id].flush()

    def _event(self, trial_id: str, summary: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        event = Event(summary=summary, step=self._last_epoch[trial_id], wall_time=time.time())
        self._writers[trial_id].write_event(event)
