"""How stacks are asked to end (at the end of an epoch, with a checkpoint), and why.

Tune's own way to stop a function trainable ends its thread wherever `report` happens to be, with
no time to write a checkpoint. Here the stack asks after each report whether to go on, and ends by
itself. The answer lives in Ray's own store, reachable from every node.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vitbench.config import Budget
from vitbench.net import handled_by
from vitbench.records.history import History
from vitbench.records.types import Status
from vitbench.tuning.events import Crashed, MembersEnded, Round, StackEvent, Trained
from vitbench.tuning.ray_private import Notes, is_dead

# A sweep whose stacks all die of the same cause says so instead of burning the night.
_SAME_CRASHES_TO_GIVE_UP = 3


@ray.remote(num_cpus=0)
def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class EndsStacks(Protocol):
    """Whoever can ask a stack to end."""

    def end(self, reason: Status, stack_id: str | None = None) -> None:
        """Ask one stack (or all) to end after the epoch that it is in."""


class StopRequests:
    """Requests to end, in the store of Ray's gcs; travels with the trainable.

    An actor could hold them, and die alone.
    """

    def __init__(self) -> None:
        self._notes = Notes(f"vitbench-stop-{uuid.uuid4().hex}")

    def end(self, reason: Status, stack_id: str | None = None) -> None:
        """Ask one stack (or all) to end; visible on return."""
        self._notes.put(f"end/{stack_id or ''}", reason)

    def runs_here(self, stack_id: str) -> bool:
        """Say that this process takes the stack; returns whether there is anything left to do."""
        here = ray.get_runtime_context()
        actor_id, node_id = str(here.get_actor_id()), here.get_node_id()
        # A later process of the same number is told by its actor.
        self._notes.put(f"runs/{actor_id}", f"{stack_id} {actor_id} {node_id} {os.getpid()}")
        return self._notes.get(f"over/{stack_id}") is None

    def over(self, stack_id: str) -> None:
        """Say that every member of the stack has its end, so that nobody trains it once more."""
        self._notes.put(f"over/{stack_id}", "")

    def kill(self, stack_id: str) -> int:
        """End the processes whose last stack this is, also those that are stopped, on any node.

        Returns how many there were.
        """
        count = 0
        for text in self._notes.below("runs/"):
            last, actor_id, node_id, pid = text.split()
            if last == stack_id and not is_dead(actor_id):
                there = NodeAffinitySchedulingStrategy(node_id, soft=False)
                _kill.options(scheduling_strategy=there).remote(int(pid))
                count += 1
        return count

    def reason_to_end(self, stack_id: str) -> Status | None:
        """What the driver asked of this stack: None to go on, else the status to end with."""
        reason = self._notes.get(f"end/{stack_id}") or self._notes.get("end/")
        return None if reason is None else Status(reason)

    def close(self) -> None:
        """Forget them all."""
        self._notes.clear()


class SweepStop:
    """Ends the whole sweep once, for the first reason given, and not inside a signal handler.

    `hand_out_no_more` is called so that no stack is started, `say` shows a line to the user.
    """

    def __init__(
        self, requests: EndsStacks, hand_out_no_more: Callable[[], None], say: Callable[[str], None]
    ) -> None:
        self._requests = requests
        self._hand_out_no_more = hand_out_no_more
        self._say = say
        self._acted = False
        self._why = ""
        self.reason: Status | None = None

    def request(self, reason: Status, why: str) -> None:
        """Ask every stack to end after its epoch; `why` is shown. Only the first request counts."""
        if self.reason is None:
            self.reason, self._why = reason, why

    def observe(self, event: StackEvent) -> None:
        """Act on a request in Tune's loop."""
        if isinstance(event, Round) and self.reason is not None and not self._acted:
            self._acted = True
            self._hand_out_no_more()
            self._requests.end(self.reason)
            self._say(self._why)


class BudgetMeter:
    """Counts what a sweep spends against its limits; `gpus_each` are those of one stack."""

    def __init__(self, limits: Budget, history: History, *, gpus_each: float) -> None:
        self._limits = limits
        self._gpus_each = gpus_each
        self._started_s = time.monotonic()
        self._before_s = history.spent_s
        self._gpu_s = history.stack_seconds * gpus_each
        self._epochs = history.epochs_trained
        self._trials = history.done

    def epoch(self, rows: int, epoch_s: float) -> None:
        """Count one epoch of a stack that trained `rows` models."""
        self._epochs += rows
        self._gpu_s += epoch_s * self._gpus_each

    def trials_done(self, count: int) -> None:
        """Count models that were trained to an end."""
        self._trials += count

    def exceeded(self) -> str | None:
        """The limit that is reached, in words; None while all hold."""
        spent = {
            "hours": (self._before_s + time.monotonic() - self._started_s) / 3600,
            "gpu_hours": self._gpu_s / 3600,
            "epochs": self._epochs,
            "models": self._trials,
        }
        for name, value in spent.items():
            limit = getattr(self._limits, name)
            if limit is not None and value >= limit:
                return f"budget.{name}={limit:g} is spent ({value:g})"
        return None


class BudgetObserver:
    """Counts what stacks spend, and ends the sweep at a limit, whose words are then in `spent`."""

    def __init__(self, meter: BudgetMeter, stop: SweepStop) -> None:
        self._meter = meter
        self._stop = stop
        self.spent: str | None = None

    def observe(self, event: StackEvent) -> None:
        """Count epochs and ends; look at the limits in every round."""
        match event:
            case Trained(_, report):
                for rows in report.by_epoch().values():
                    self._meter.epoch(len(rows), rows[0].epoch_s)
            case MembersEnded(_, outcomes):
                self._meter.trials_done(sum(outcome.status.is_done for outcome in outcomes))
            case Round() if self._stop.reason is None:
                self.spent = self._meter.exceeded()
                if self.spent is not None:
                    why = f"{self.spent}: running stacks end after their epoch."
                    self._stop.request(Status.BUDGET, why)


class GivingUp:
    """Ends the sweep where stack after stack crashes of one cause, which is then in `cause`."""

    def __init__(self, stop: SweepStop) -> None:
        self._stop = stop
        self._last = ""
        self._count = 0
        self.cause: str | None = None

    def observe(self, event: StackEvent) -> None:
        """Count the same crash in a row; a member that was trained ends the row."""
        if isinstance(event, MembersEnded):
            if not all(outcome.status.is_failure for outcome in event.outcomes):
                self._count = 0
        elif isinstance(event, Crashed) and event.status is not None:
            self._count = self._count + 1 if event.error == self._last else 1
            self._last = event.error
            if self._count >= _SAME_CRASHES_TO_GIVE_UP and self._stop.reason is None:
                self.cause = event.error
                why = f"The same crash again and again ({event.error}): running stacks end."
                self._stop.request(Status.GAVE_UP, why)


class Interrupt:
    """Ctrl-C or SIGTERM: once ends the stacks after their epoch, twice ends everything at once.

    Use as a context manager in the main thread; the handlers from before come back at its end.
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        self._on_first = on_first
        self._handled = handled_by(self._handle)
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._handled.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._handled.__exit__(*error)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._on_first()
