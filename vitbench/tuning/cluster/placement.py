"""Keeps a sweep's small actors on the node of the process that makes them."""

from __future__ import annotations

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Places an actor on the node of the process that makes it.

    Ray puts an actor that needs no CPU on any node, so also on one that may vanish; the sweep
    would end with it.
    """
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
