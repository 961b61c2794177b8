"""How the driver asks running stacks to end: at the end of an epoch, with a checkpoint.

Tune's own way to stop a function trainable ends its thread wherever `report` happens to be, with
no time to write a checkpoint. Here the stack asks after each report whether to go on, and ends by
itself. The answer lives in one small actor, reachable from every node.
"""

from __future__ import annotations

from typing import Any

import ray

from vitbench.tuning.cluster.placement import on_this_node

INTERRUPTED = "interrupted"
BUDGET = "budget"
STOPPED = "stopped"


@ray.remote(num_cpus=0)
class _ControlActor:
    """Holds the reason to end, for all stacks or for one."""

    def __init__(self) -> None:
        self._everyone: str | None = None
        self._by_stack: dict[str, str] = {}

    def set(self, reason: str, stack_id: str | None) -> None:
        if stack_id is None:
            self._everyone = reason
        else:
            self._by_stack[stack_id] = reason

    def get(self, stack_id: str) -> str | None:
        return self._by_stack.get(stack_id) or self._everyone


class Control:
    """Handle to the control actor, which lives beside its maker; travels with the trainable."""

    def __init__(self) -> None:
        actor = _ControlActor.options(  # type: ignore[attr-defined]  # by the decorator
            scheduling_strategy=on_this_node()
        )
        self._actor: Any = actor.remote()

    def end(self, reason: str, stack_id: str | None = None) -> None:
        """Ask one stack (or all) to end after the epoch that it is in; visible on return."""
        ray.get(self._actor.set.remote(reason, stack_id))

    def reason_to_end(self, stack_id: str) -> str | None:
        """What the driver asked of this stack: None to go on, else the status to end with."""
        reason: str | None = ray.get(self._actor.get.remote(stack_id))
        return reason
