"""Carries stacks to groups of workers, and their reports back to the process that Tune runs.

Ray Train hands on what workers report when its controller looks, every few hundred milliseconds
at best. Here rank 0 sends a message and waits until Tune has taken it in, as `tune.report` does in
one process: a checkpoint never runs ahead of the ledger, and a report costs milliseconds.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup

from vitbench.plan import StackPlan
from vitbench.records.types import StackReport
from vitbench.tuning.cluster.placement import actor_here


@dataclass(frozen=True)
class Group:
    """A group of workers: the actor that started it, and where it lives, once it says so."""

    owner: str
    placement: PlacementGroup | None = None


@dataclass(frozen=True)
class Assignment:
    """A stack to train, or a part of one; `stack_id` is that of the whole."""

    part: StackPlan
    stack_id: str


@dataclass(frozen=True)
class Over:
    """A group is through with its stack; not `whole` where it was asked to end before."""

    whole: bool


Message = StackReport | Over


@ray.remote(num_cpus=0)
class _ChannelActor:
    """Assignments to groups of workers, and one message at a time from each group."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._assigned: dict[str, list[Assignment]] = {}
        self._messages: dict[str, Message] = {}
        self._changed = asyncio.Condition()

    async def register(self, name: str, group: Group) -> None:
        self._groups[name] = group

    async def groups(self) -> dict[str, Group]:
        return self._groups

    async def assign(self, name: str, assignment: Assignment) -> None:
        async with self._changed:
            self._assigned.setdefault(name, []).append(assignment)
            self._changed.notify_all()

    async def assignment(self, name: str, number: int) -> Assignment:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._assigned.get(name, ())) > number)
            return self._assigned[name][number]

    async def post(self, name: str, message: Message) -> None:
        async with self._changed:
            self._messages[name] = message
            self._changed.notify_all()
            await self._changed.wait_for(lambda: name not in self._messages)

    async def take(self, name: str, timeout_s: float) -> Message | None:
        async with self._changed:
            arrived = self._changed.wait_for(lambda: name in self._messages)
            try:
                await asyncio.wait_for(arrived, timeout_s)
            except TimeoutError:
                return None
            return self._messages[name]

    async def acknowledge(self, name: str) -> None:
        async with self._changed:
            del self._messages[name]
            self._changed.notify_all()


class Channel:
    """Handle to the channel, an actor on its maker's node; travels with the trainable.

    Groups are known by a name each, which their owner gives them. Where the actor dies, the calls
    that wait for it raise: the stacks crash, and are tried again with new groups.
    """

    def __init__(self) -> None:
        self._actor: Any = actor_here(_ChannelActor)

    def register(self, name: str, group: Group) -> None:
        """Tell who owns a group before it starts, and then where it lives."""
        ray.get(self._actor.register.remote(name, group))

    def groups(self) -> dict[str, Group]:
        """All groups that were registered."""
        return dict(ray.get(self._actor.groups.remote()))

    def assign(self, name: str, assignment: Assignment) -> None:
        """Give a group of workers its next stack."""
        ray.get(self._actor.assign.remote(name, assignment))

    def assignment(self, name: str, number: int) -> Assignment:
        """Wait for the group's stack of this number (from 0): the same for each of its workers."""
        assigned: Assignment = ray.get(self._actor.assignment.remote(name, number))
        return assigned

    def post(self, name: str, message: Message) -> None:
        """Send a message and wait until it was acknowledged."""
        ray.get(self._actor.post.remote(name, message))

    def take(self, name: str, *, timeout_s: float) -> Message | None:
        """Wait for a message; None after the time. It stays until it is acknowledged."""
        message: Message | None = ray.get(self._actor.take.remote(name, timeout_s))
        return message

    def acknowledge(self, name: str) -> None:
        """Let the sender of the message go on."""
        ray.get(self._actor.acknowledge.remote(name))
