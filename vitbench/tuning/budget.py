"""Hard limits of a sweep, counted over all its runs."""

from __future__ import annotations

import time

from vitbench.config import Budget
from vitbench.records.history import History
from vitbench.records.types import Status
from vitbench.tuning.events import MembersEnded, Round, StackEvent, Trained
from vitbench.tuning.stop import SweepStop


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
