"""Copies of the results for other tools as a sweep runs; they can neither stop nor slow it.

Each exporter has a thread, fed from the driver's loop and never waited for while models train.
"""

from __future__ import annotations

import importlib.util
import queue
import threading
from collections.abc import Callable, Mapping, Sequence

from vitbench.errors import UserError
from vitbench.exports.targets import TARGETS, Member, Place, Row, Target
from vitbench.plan import StackPlan
from vitbench.records.types import Status

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
_PATIENCE_S = 60.0  # at the end of a sweep, as long as nothing moves


def require(names: Sequence[str]) -> None:
    """Check that the package of each exporter is installed, without importing it.

    Raises:
        UserError: if one is not.
    """
    for name in names:
        spec = importlib.util.find_spec(PACKAGES[name])
        if spec is None or spec.origin is None:  # a folder of that name is no package
            raise UserError(
                f"exports: {name} needs the package {PACKAGES[name]}, which is not installed; "
                f"pip install 'vitbench[{name}]', or leave it out"
            )


class _Exporter(threading.Thread):
    """The thread of one exporter."""

    def __init__(self, name: str, make: Callable[[], Target], failed: Callable[[str], None]):
        super().__init__(name=f"export-{name}", daemon=True)
        self.calls: queue.SimpleQueue[Callable[[Target], None] | None] = queue.SimpleQueue()
        self.done = 0
        self.on = True
        self._make = make
        self._failed = failed

    def run(self) -> None:
        try:
            target = self._make()
            while (call := self.calls.get()) is not None:
                call(target)
                self.done += 1
            target.close()
        except Exception as error:  # whatever it is, the sweep goes on without this exporter
            text = str(error).strip()
            lines = text.splitlines() or [type(error).__name__]
            self._failed(f"{type(error).__name__}: {lines[-1]}")
        finally:
            self.on = False


class Exports:
    """All exporters of a sweep, as its recorder sees them: no call waits or raises."""

    def __init__(
        self,
        names: Sequence[str],
        place: Place,
        before: Mapping[str, Mapping[int, Row]] | None = None,
        targets: Mapping[str, Callable[[Place], Target]] = TARGETS,
    ) -> None:
        """Start the exporters.

        Args:
            names: keys of `targets`.
            place: where they write to.
            before: rows of earlier runs by trial and epoch, which a model that goes on has too.
            targets: makers of the exporters.
        """
        self._place = place
        self._before = before or {}
        self._failures: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._members: dict[str, Member] = {}
        self._epochs: dict[str, int] = {}
        self._threads = [self._start(name, targets[name]) for name in names]

    def _start(self, name: str, make: Callable[[Place], Target]) -> _Exporter:
        def failed(reason: str) -> None:
            self._failures.put((name, reason))

        thread = _Exporter(name, lambda: make(self._place), failed)
        thread.start()
        return thread

    def rows(self, plan: StackPlan, rows: Sequence[Row]) -> None:
        """Epochs of a stack's members; one that a crash repeats is passed over."""
        if not self._threads:
            return
        for row in rows:
            member = self._member(plan, row["trial_id"])
            if row["epoch"] > self._epochs[row["trial_id"]]:
                self._epochs[row["trial_id"]] = row["epoch"]
                self._put_row(member, {**row, "before": False})

    def ended(self, plan: StackPlan, outcomes: Sequence[Row]) -> None:
        """Models have an end; one that only pauses, to go on with a resume, has none yet."""
        if not self._threads:
            return
        for outcome in outcomes:
            member = self._member(plan, outcome["trial_id"])
            status = Status(outcome["status"])
            if not status.is_pause:
                self._put_end(member, status)
                del self._members[outcome["trial_id"]]

    def failures(self) -> list[tuple[str, str]]:
        """Exporters that have failed since the last call, each with the reason."""
        found = []
        while not self._failures.empty():
            found.append(self._failures.get())
        return found

    def close(self, patience_s: float = _PATIENCE_S) -> list[str]:
        """Wait for what is still to be written; returns the exporters that did not get there.

        Args:
            patience_s: seconds to wait for one that makes no progress.
        """
        for thread in self._threads:
            thread.calls.put(None)
        for thread in self._threads:
            done = -1
            while thread.is_alive() and thread.done > done:
                done = thread.done
                thread.join(patience_s)
        return [t.name.removeprefix("export-") for t in self._threads if t.is_alive()]

    def _member(self, plan: StackPlan, trial_id: str) -> Member:
        """The stand-in of a model; new ones get the epochs of earlier runs first."""
        if trial_id not in self._members:
            trial = next(m for m in plan.members if m.trial_id == trial_id)
            self._members[trial_id] = member = Member(trial, self._place)
            old = self._before.get(trial_id, {})
            self._epochs[trial_id] = max(old, default=0)
            for epoch in sorted(old):
                self._put_row(member, {**old[epoch], "before": True})
        return self._members[trial_id]

    def _put_row(self, member: Member, row: Row) -> None:
        self._put(lambda target: target.row(member, row))

    def _put_end(self, member: Member, status: str) -> None:
        self._put(lambda target: target.ended(member, status))

    def _put(self, call: Callable[[Target], None]) -> None:
        for thread in self._threads:
            if thread.on:
                thread.calls.put(call)
