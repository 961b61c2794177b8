"""Keeps a sweep's small actors on the node of the process that makes them."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def actor_here(actor_class: Any) -> Any:
    """Start an actor on the node of this process.

    Ray puts an actor that needs no CPU on any node, so also on one that may vanish; the sweep
    would end with it. One that dies alone is started again, and has forgotten all.
    """
    node_id = ray.get_runtime_context().get_node_id()
    here = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return actor_class.options(scheduling_strategy=here, max_restarts=-1).remote()
