"""What a person sees of a running sweep: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import OrderedDict
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
from vitbench.terminal.words import duration

_PLAIN_INTERVAL_S = 20.0


@dataclass
class StackView:
    """What is known of a running stack; speeds are those of the whole stack."""

    plan: StackPlan
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
    def fraction(self) -> float:
        """Share of the stack's epochs that are done, 0 to 1."""
        return self.epoch / self.epochs

    def take(self, report: StackReport) -> None:
        """Read a report: the median over members stands for the stack."""
        if not self.epoch:
            self.first_epoch = report.epoch - 1
        self.epoch = report.epoch
        if report.images_per_s is not None:
            self.images_per_s = report.images_per_s
        if rows := report.by_epoch().get(report.epoch):
            self.train_loss = median_high([row.train_loss for row in rows])
            self.val_accuracy = median_high([row.val_accuracy for row in rows])


@dataclass
class SweepView:
    """The state of the whole sweep, from which either view draws."""

    total_stacks: int
    known_flops: float | None  # of all stacks; None: a search decides as it goes
    slots: int
    done_flops: float = 0.0
    done_stacks: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    running: OrderedDict[str, StackView] = field(default_factory=OrderedDict)
    started_s: float = field(default_factory=time.monotonic)
    worked_flops: float = 0.0  # done by this run; resumed epochs were paid before
    worked_slot_s: float = 0.0

    @property
    def total_flops(self) -> float:
        """FLOPs of the whole sweep; of a search, guessed from the stacks so far."""
        if self.known_flops is not None:
            return self.known_flops
        started = self.done_stacks + len(self.running)
        flops = self.done_flops + sum(view.flops for view in self.running.values())
        return flops / max(1, started) * self.total_stacks

    def eta_s(self) -> float | None:
        """Seconds left, from the FLOPs of the training still to do and the rate so far.

        The rate is per slot, so the last stacks, which leave slots idle, count in full.
        """
        now_s = time.monotonic()
        busy_s = self.worked_slot_s + sum(now_s - view.started_s for view in self.running.values())
        worked = self.worked_flops + sum(
            view.flops * (view.epoch - view.first_epoch) / view.epochs
            for view in self.running.values()
        )
        if not worked or not busy_s:
            return None
        rate_per_slot = worked / busy_s
        remaining = self.total_flops - self.done_flops
        remaining -= sum(view.flops * view.fraction for view in self.running.values())
        longest = max(
            (view.flops * (1 - view.fraction) for view in self.running.values()), default=0.0
        )
        return max(remaining / self.slots, longest) / rate_per_slot


class Progress:
    """What a person sees of a sweep; called on the driver, and open while the sweep runs."""

    def __init__(self, console: Console, view: SweepView) -> None:
        self._console = console
        self._view = view

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def reported(self, view: StackView) -> None:
        """Some epochs of a stack have arrived."""

    def ended(self, view: StackView, statuses: Sequence[str]) -> None:
        """A stack is over."""

    def say(self, message: str) -> None:
        """Print a message on its own line."""
        self._console.print(message, soft_wrap=True, highlight=False, markup=False)


class Tracker:
    """Keeps the SweepView up to date and passes events on to what the person sees."""

    def __init__(self, view: SweepView, shown: Progress) -> None:
        self.view = view
        self.shown = shown

    def started(self, plan: StackPlan, label: str, flops: float) -> None:
        """A stack has been given to a worker (again, after a crash)."""
        view = StackView(plan=plan, label=label, epochs=plan.shared.train.epochs, flops=flops)
        self.view.running[plan.stack_id] = view

    def reported(self, stack_id: str, report: StackReport) -> None:
        """Some epochs of a stack have arrived."""
        view = self.view.running[stack_id]
        view.take(report)
        self.shown.reported(view)

    def ended(self, stack_id: str, statuses: Sequence[str]) -> None:
        """A stack is over; one status per member."""
        view = self.view.running.pop(stack_id, None)
        if view is None:
            return
        state = self.view
        state.done_stacks += 1
        state.done_flops += view.flops
        state.worked_flops += view.flops * (view.epoch - view.first_epoch) / view.epochs
        state.worked_slot_s += time.monotonic() - view.started_s
        for status in statuses:
            state.counts[status] = state.counts.get(status, 0) + 1
        self.shown.ended(view, statuses)


class PlainProgress(Progress):
    """For pipes and CI: a line when a stack ends, and now and then one for the whole sweep."""

    def __init__(self, console: Console, view: SweepView) -> None:
        super().__init__(console, view)
        self._last_line_s = time.monotonic()

    def reported(self, view: StackView) -> None:
        """One line for all running stacks, at most every 20 seconds."""
        if time.monotonic() - self._last_line_s >= _PLAIN_INTERVAL_S:
            self._last_line_s = time.monotonic()
            running = "; ".join(_plain_state(v) for v in self._view.running.values() if v.epoch)
            self.say(f"{_headline(self._view)} | {running}")

    def ended(self, view: StackView, statuses: Sequence[str]) -> None:
        """One line per stack."""
        took_s = time.monotonic() - view.started_s
        self.say(
            f"{view.label}: {_tally(statuses)} at epoch {view.epoch}, train loss "
            f"{view.train_loss:.3f}, val accuracy {view.val_accuracy:.3f}, {took_s:.0f} s"
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

    def _render(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, expand=False)
        for name in ("stack", "", "epoch", "train loss", "val acc", "images/s", "elapsed"):
            table.add_column(name, justify="left" if name in ("stack", "") else "right")
        for view in list(self._view.running.values()):
            table.add_row(
                Text(view.label, overflow="ellipsis"),
                ProgressBar(total=view.epochs, completed=view.epoch, width=16),
                f"{view.epoch}/{view.epochs}",
                _number(view.train_loss, ".4f", view.epoch),
                _number(view.val_accuracy, ".3f", view.epoch),
                _number(view.images_per_s, ",.0f", view.epoch),
                duration(time.monotonic() - view.started_s),
            )
        return Group(Text(_headline(self._view), style="bold"), table)


def progress_for(console: Console, view: SweepView) -> Progress:
    """Live on a terminal, plain lines elsewhere."""
    return (LiveProgress if console.is_terminal else PlainProgress)(console, view)


def _headline(view: SweepView) -> str:
    eta_s = view.eta_s()
    left = f", about {duration(eta_s)} left" if eta_s is not None else ""
    tally = ", ".join(f"{n} {status}" for status, n in sorted(view.counts.items()))
    elapsed = duration(time.monotonic() - view.started_s)
    done = f"{view.done_stacks}/{view.total_stacks} stacks done"
    return f"{done}{f' ({tally})' if tally else ''}, {elapsed}{left}"


def _plain_state(view: StackView) -> str:
    return (
        f"{view.label}: epoch {view.epoch}/{view.epochs}, loss {view.train_loss:.3f}, "
        f"val acc {view.val_accuracy:.3f}, {view.images_per_s:,.0f} images/s"
    )


def _tally(statuses: Sequence[str]) -> str:
    if len(statuses) == 1:
        return statuses[0]
    return ", ".join(f"{statuses.count(s)} {s}" for s in sorted(set(statuses)))


def _number(value: float, form: str, epoch: int) -> str:
    return format(value, form) if epoch else "-"
