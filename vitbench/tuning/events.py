"""What happens to the stacks of a running sweep, as one typed event that observers are told of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vitbench.plan import StackPlan
from vitbench.records.types import StackReport, Status, TrialOutcome


@dataclass(frozen=True, slots=True)
class Started:
    """A stack was given to a worker (again, after a crash)."""

    plan: StackPlan


@dataclass(frozen=True, slots=True)
class Trained:
    """A worker reported: epochs, ends of members, or both."""

    plan: StackPlan
    report: StackReport


@dataclass(frozen=True, slots=True)
class Warned:
    """A worker warned of something that no worker of the sweep has warned of before."""

    plan: StackPlan
    text: str  # a line


@dataclass(frozen=True, slots=True)
class Crashed:
    """A stack could not go on.

    Attributes:
        plan: of the stack.
        error: the cause, in a line.
        traceback: the whole text.
        status: how its members end; None where it goes on from its last checkpoint.
    """

    plan: StackPlan
    error: str
    traceback: str
    status: Status | None


@dataclass(frozen=True, slots=True)
class MembersEnded:
    """Members of a stack have their end: all, or a part of one that did not fit into memory."""

    plan: StackPlan
    outcomes: tuple[TrialOutcome, ...]


@dataclass(frozen=True, slots=True)
class StackEnded:
    """Every member of the stack has its end; `outcomes` are in the order in which they came."""

    plan: StackPlan
    outcomes: tuple[TrialOutcome, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """Tune's loop goes round, some times a second, whether or not anything has arrived."""


StackEvent = Started | Trained | Warned | Crashed | MembersEnded | StackEnded | Round


class StackObserver(Protocol):
    """Is told of every event on the driver, after the ledger and in a fixed order."""

    def observe(self, event: StackEvent) -> None:
        """Take in an event; Tune waits meanwhile."""
