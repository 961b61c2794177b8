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

from vitbench.tuning.cluster.placement import on_this_node

# (stack as JSON, id of the stack as the driver knows it)
Assignment = tuple[str, str]


@dataclass
class Group:
    """A group of workers: the actor that started it, and where it lives, once it says so."""

    owner: str
    placement: PlacementGroup | None = None


@ray.remote(num_cpus=0)
class _ChannelActor:
    """Assignments to groups of workers, and one message at a time from each group."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._assigned: dict[str, list[Assignment]] = {}
        self._messages: dict[str, dict[str, Any]] = {}
        self._changed = asyncio.Condition()

    async def announce(self, group: str, owner: str) -> None:
        self._groups[group] = Group(owner)

    async def placed(self, group: str, placement: PlacementGroup) -> None:
        self._groups[group].placement = placement

    async def groups(self) -> dict[str, Group]:
        return self._groups

    async def forget(self, group: str) -> None:
        self._groups.pop(group, None)

    async def assign(self, group: str, assignment: Assignment) -> None:
        async with self._changed:
            self._assigned.setdefault(group, []).append(assignment)
            self._changed.notify_all()

    async def assignment(self, group: str, number: int) -> Assignment:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._assigned.get(group, ())) > number)
            return self._assigned[group][number]

    async def post(self, group: str, message: dict[str, Any]) -> None:
        async with self._changed:
            self._messages[group] = message
            self._changed.notify_all()
            await self._changed.wait_for(lambda: group not in self._messages)

    async def take(self, group: str, timeout_s: float) -> dict[str, Any] | None:
        async with self._changed:
            arrived = self._changed.wait_for(lambda: group in self._messages)
            try:
                await asyncio.wait_for(arrived, timeout_s)
            except TimeoutError:
                return None
            return self._messages[group]

    async def acknowledge(self, group: str) -> None:
        async with self._changed:
            del self._messages[group]
            self._changed.notify_all()


class Channel:
    """Handle to the channel, an actor on its maker's node; travels with the trainable."""

    def __init__(self) -> None:
        actor = _ChannelActor.options(  # type: ignore[attr-defined]  # by the decorator
            scheduling_strategy=on_this_node()
        )
        self._actor: Any = actor.remote()

    def announce(self, group: str, owner: str) -> None:
        """A group is about to be started by this actor."""
        ray.get(self._actor.announce.remote(group, owner))

    def placed(self, group: str, placement: PlacementGroup) -> None:
        """The group lives here: what is to be removed if its owner dies."""
        ray.get(self._actor.placed.remote(group, placement))

    def groups(self) -> dict[str, Group]:
        """All groups that were announced and not forgotten."""
        groups: dict[str, Group] = ray.get(self._actor.groups.remote())
        return groups

    def forget(self, group: str) -> None:
        """The group is gone, and what it held is given back."""
        ray.get(self._actor.forget.remote(group))

    def assign(self, group: str, plan: str, stack_id: str) -> None:
        """Give a group of workers its next stack."""
        ray.get(self._actor.assign.remote(group, (plan, stack_id)))

    def assignment(self, group: str, number: int) -> Assignment:
        """Wait for the group's stack of this number (from 0): the same for each of its workers."""
        plan, stack_id = ray.get(self._actor.assignment.remote(group, number))
        return plan, stack_id

    def post(self, group: str, message: dict[str, Any]) -> None:
        """Send a message and wait until it was acknowledged."""
        ray.get(self._actor.post.remote(group, message))

    def take(self, group: str, *, timeout_s: float) -> dict[str, Any] | None:
        """Wait for a message; None after the time. It stays until it is acknowledged."""
        message: dict[str, Any] | None = ray.get(self._actor.take.remote(group, timeout_s))
        return message

    def acknowledge(self, group: str) -> None:
        """Let the sender of the message go on."""
        ray.get(self._actor.acknowledge.remote(group))
