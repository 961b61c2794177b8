"""What a stack needs in whole, what the cluster has, and how many stacks that makes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import ray

from vitbench.config import Resources
from vitbench.errors import UserError
from vitbench.tuning.packing import gpus_per_worker, slots_of

# The cluster is asked again at most this often.
_FRESH_S = 2.0

Node = tuple[float, float]  # CPUs and GPUs


@dataclass(frozen=True)
class Capacity:
    """What the cluster has in whole, and how many stacks of the sweep fit side by side.

    Attributes:
        cpus, gpus, nodes: of the nodes that are up, or that an autoscaler may start.
        gpus_each: GPUs of one worker.
        slots: stacks that fit on an empty cluster.
        free_slots: stacks that fit beside what others run there now; at least 1.
    """

    cpus: float
    gpus: float
    nodes: int
    gpus_each: float
    slots: int
    free_slots: int


def capacity(resources: Resources) -> Capacity:
    """How many stacks the connected cluster can hold at once, counted node by node.

    Raises:
        UserError: if not even one stack can ever fit.
    """
    nodes = _nodes_at_most()
    cpus, gpus = [node[0] for node in nodes], [node[1] for node in nodes]
    gpus_each = gpus_per_worker(resources, max(gpus, default=0.0))
    slots = slots_of(resources, nodes, gpus_each=gpus_each)
    if slots == 0:
        asked = f"cpus={resources.cpus:g}, gpus={gpus_each:g}"
        if resources.workers > 1:
            asked = f"workers={resources.workers} with {asked} each"
        listed = ", ".join(_described(node) for node in sorted(nodes, reverse=True)[:8])
        more = f" and {len(nodes) - 8} smaller" if len(nodes) > 8 else ""
        raise UserError(
            f"resources: a stack asks for {asked}; the cluster has {len(nodes)} node(s) "
            f"({listed or 'none'}{more}), so it can never start. Lower resources.workers, cpus or "
            f"gpus, or join a larger cluster with --address."
        )
    free = slots_of(resources, _free_nodes(), gpus_each=gpus_each)
    growing = len(nodes) > len(_nodes_up())
    return Capacity(
        cpus=sum(cpus),
        gpus=sum(gpus),
        nodes=len(nodes),
        gpus_each=gpus_each,
        slots=slots,
        free_slots=slots if growing else max(1, min(slots, free)),
    )


class LiveSlots:
    """How many stacks may run side by side right now, on a cluster that grows and shrinks."""

    def __init__(self, resources: Resources, *, gpus_each: float, at_most: int | None) -> None:
        self._resources = resources
        self._gpus_each = gpus_each
        self._at_most = at_most
        self._asked_s = -_FRESH_S
        self._slots = 1

    def __call__(self) -> int:
        """At least 1: a stack that waits for a machine is what makes an autoscaler start one."""
        now_s = time.monotonic()
        if now_s - self._asked_s >= _FRESH_S:
            self._asked_s = now_s
            self._slots = slots_of(self._resources, _nodes_at_most(), gpus_each=self._gpus_each)
        slots = self._slots if self._at_most is None else min(self._slots, self._at_most)
        return max(1, slots)


def _nodes_up() -> list[Node]:
    return [_node(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _free_nodes() -> list[Node]:
    from ray._private.state import available_resources_per_node  # no public twin per node

    return [_node(node) for node in available_resources_per_node().values()]


def _nodes_at_most() -> list[Node]:
    """The nodes that are up, or, if that is more, all that the autoscaler may start."""
    from ray._private.state import state  # the same that Ray Train asks

    up = _nodes_up()
    config = state.get_cluster_config()
    may_be: list[Node] = []
    for group in config.node_group_configs if config is not None else ():
        count = group.max_count if group.max_count >= 0 else 1000  # -1: no limit
        may_be += [_node(dict(group.resources))] * count
    may_be = [node for node in may_be if node != (0.0, 0.0)]
    return may_be if sum(map(sum, may_be)) > sum(map(sum, up)) else up


def _node(resources: dict[str, float]) -> Node:
    return float(resources.get("CPU", 0.0)), float(resources.get("GPU", 0.0))


def _described(node: Node) -> str:
    cpus, gpus = node
    return f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
