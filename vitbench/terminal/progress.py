"""What a person sees of a running sweep: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median_high
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vitbench.plan import StackPlan
from vitbench.records.types import StackReport
from vitbench.words import duration

_PLAIN_INTERVAL_S = 20.0
_COLUMNS = ("in training", "", "epoch", "train loss", "val acc", "images/s", "elapsed")


@dataclass
class StackView:
    """What is known of a running stack; speeds are those of the whole stack."""

    label: str
    epochs: int
    flops: float
    epoch: int = 0
    first_epoch: int = 0
    train_loss: float = float("nan")
    val_accuracy: float = float("nan")
    images_per_s: float = float("nan")
    started_s: float = field(default_factory=time.monotonic)

    @property
    def left_flops(self) -> float:
        """FLOPs of the epochs that are still to do."""
        return self.flops * (1 - self.epoch / self.epochs)

    @property
    def worked_flops(self) -> float:
        """FLOPs of the epochs that this run did; resumed ones were paid before."""
        return self.flops * (self.epoch - self.first_epoch) / self.epochs

    @property
    def age_s(self) -> float:
        """Seconds since it was given to a worker."""
        return time.monotonic() - self.started_s

    def take(self, report: StackReport) -> None:
        """Read a report: the median over members stands for the stack."""
        if not self.epoch:
            self.first_epoch = report.epoch - 1
        self.epoch = report.epoch
        if report.images_per_s is not None:
            self.images_per_s = report.images_per_s
        if rows := report.by_epoch().get(report.epoch):
            self.train_loss = median_high([row.train_loss for row in rows])
            evaluated = [row.val_accuracy for row in rows if row.val_accuracy is not None]
            self.val_accuracy = median_high(evaluated or [self.val_accuracy])


@dataclass
class SweepView:
    """The state of the whole sweep, from which either view draws."""

    total_stacks: int
    known_flops: float | None  # of all stacks; None: a search decides as it goes
    slots: int
    done_flops: float = 0.0
    done_stacks: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    running: dict[str, StackView] = field(default_factory=dict)
    started_s: float = field(default_factory=time.monotonic)
    worked_flops: float = 0.0  # of stacks that are over
    worked_slot_s: float = 0.0
    largest: int = 1  # models of a stack

    def end(self, view: StackView, statuses: Sequence[str]) -> None:
        """Count a stack that is over; one status per member."""
        self.done_stacks += 1
        self.done_flops += view.flops
        self.worked_flops += view.worked_flops
        self.worked_slot_s += view.age_s
        self.counts.update(statuses)

    def eta_s(self) -> float | None:
        """Seconds left, from the FLOPs of the training still to do and the rate so far.

        The rate is per slot, so the last stacks, which leave slots idle, count in full. The FLOPs
        of a search are guessed from the stacks so far.
        """
        views = list(self.running.values())
        busy_s = self.worked_slot_s + sum(view.age_s for view in views)
        worked = self.worked_flops + sum(view.worked_flops for view in views)
        if not worked or not busy_s:
            return None
        known = self.done_flops + sum(view.flops for view in views)
        total = self.known_flops
        if total is None:
            total = known / max(1, self.done_stacks + len(views)) * self.total_stacks
        left = [view.left_flops for view in views]
        remaining = total - known + sum(left)
        return max(remaining / self.slots, max(left, default=0.0)) * busy_s / worked

    def headline(self) -> str:
        """Stacks and models that are done, time so far, time left."""
        eta_s = self.eta_s()
        left = f", about {duration(eta_s)} left" if eta_s is not None else ""
        tally = ", ".join(f"{n} {status}" for status, n in sorted(self.counts.items()))
        elapsed = duration(time.monotonic() - self.started_s)
        what = "stacks" if self.largest > 1 else "trials"
        done = f"{self.done_stacks}/{self.total_stacks} {what} done"
        return f"{done}{f' ({tally})' if tally else ''}, {elapsed}{left}"


def _if_known(value: float, form: str, otherwise: str = "") -> str:
    return form.format(value) if math.isfinite(value) else otherwise


class Progress:
    """For pipes and CI: a line when a stack ends, and now and then one for the whole sweep.

    Called on the driver, and open while the sweep runs.
    """

    def __init__(self, console: Console, view: SweepView) -> None:
        self._console = console
        self._view = view
        self._last_line_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def started(self, plan: StackPlan, label: str, flops: float) -> None:
        """A stack has been given to a worker (again, after a crash)."""
        view = StackView(label=label, epochs=plan.shared.train.epochs, flops=flops)
        self._view.running[plan.stack_id] = view
        self._view.largest = max(self._view.largest, plan.size)

    def reported(self, stack_id: str, report: StackReport) -> None:
        """Some epochs of a stack have arrived."""
        self._view.running[stack_id].take(report)
        self._show_running()

    def ended(self, stack_id: str, statuses: Sequence[str]) -> None:
        """A stack is over; one status per member."""
        view = self._view.running.pop(stack_id, None)
        if view is not None:
            self._view.end(view, statuses)
            self._show_end(view, statuses)

    def say(self, message: str) -> None:
        """Print a message on its own line."""
        self._console.print(message, soft_wrap=True, highlight=False, markup=False)

    def _show_running(self) -> None:
        """One line for all running stacks, at most every 20 seconds."""
        if time.monotonic() - self._last_line_s >= _PLAIN_INTERVAL_S:
            self._last_line_s = time.monotonic()
            running = "; ".join(
                f"{view.label}: epoch {view.epoch}/{view.epochs}, loss {view.train_loss:.3f}"
                f"{_if_known(view.val_accuracy, ', val acc {:.3f}')}"
                f"{_if_known(view.images_per_s, ', {:,.0f} images/s')}"
                for view in self._view.running.values()
                if view.epoch
            )
            self.say(f"{self._view.headline()} | {running}")

    def _show_end(self, view: StackView, statuses: Sequence[str]) -> None:
        """One line per stack."""
        tally = statuses[0]
        if len(statuses) > 1:
            tally = ", ".join(f"{n} {status}" for status, n in sorted(Counter(statuses).items()))
        self.say(
            f"{view.label}: {tally} at epoch {view.epoch}"
            f"{_if_known(view.train_loss, ', train loss {:.3f}')}"
            f"{_if_known(view.val_accuracy, ', val accuracy {:.3f}')}, {view.age_s:.0f} s"
        )


class LiveProgress(Progress):
    """For a terminal: one table that is redrawn in place."""

    def __init__(self, console: Console, view: SweepView) -> None:
        super().__init__(console, view)
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, message: str) -> None:
        """Print a message above the view."""
        self._console.print(Text(message))

    def _show_running(self) -> None:
        """Nothing: the table shows it."""

    def _show_end(self, view: StackView, statuses: Sequence[str]) -> None:
        """Nothing: the headline counts it."""

    def _render(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, expand=False)
        for number, name in enumerate(_COLUMNS):
            table.add_column(name, justify="left" if number < 2 else "right")
        for view in list(self._view.running.values()):
            measured = (
                _if_known(view.train_loss, "{:.4f}", "-"),
                _if_known(view.val_accuracy, "{:.3f}", "-"),  # not looked at in every epoch
                _if_known(view.images_per_s, "{:,.0f}", "-"),
            )
            table.add_row(
                Text(view.label, overflow="ellipsis"),
                ProgressBar(total=view.epochs, completed=view.epoch, width=16),
                f"{view.epoch}/{view.epochs}",
                *(measured if view.epoch else ("-",) * len(measured)),
                duration(view.age_s),
            )
        return Group(Text(self._view.headline(), style="bold"), table)
