"""Counts how many stacks the cluster can train side by side, now and at most."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml

from vitbench.config import Resources
from vitbench.errors import UserError
from vitbench.plan.stacks import gpus_per_worker, slots_of
from vitbench.tuning.ray_private import free_resources_per_node

# The cluster is asked again at most this often.
_FRESH_S = 2.0
# A sweep that has just ended on the same Ray (a notebook) gives its cores back within this time.
_RELEASED_S = 3.0
GROWS_TO = "VITBENCH_GROWS_TO"
_RAY_UP_FILE = Path("~/ray_bootstrap_config.yaml")

Node = tuple[float, float]  # CPUs and GPUs


@dataclass(frozen=True)
class Capacity:
    """CPUs, GPUs and nodes of the cluster, and how many stacks of the sweep fit side by side."""

    cpus: float  # of the nodes that are up, or that an autoscaler may start; so are the next two
    gpus: float
    nodes: int
    gpus_each: float  # of one worker
    slots: int  # stacks that fit on an empty cluster
    free_slots: int  # stacks that fit beside what others run there now; at least 1
    cores: tuple[int, ...]  # whole CPUs for training of each node that can train a stack
    growing: bool  # whether an autoscaler may start nodes that are not up


def capacity(resources: Resources) -> Capacity:
    """How many stacks the connected cluster can hold at once, counted node by node.

    Raises:
        UserError: if not even one stack can ever fit.
    """
    nodes = _nodes_at_most()
    gpus_each = gpus_per_worker(resources, max((gpus for _, gpus in nodes), default=0.0))
    slots = slots_of(resources, nodes, gpus_each=gpus_each)
    if slots == 0:
        asked = f"cpus={resources.cpus_at_least:g}, gpus={gpus_each:g}"
        if resources.workers > 1:
            asked = f"workers={resources.workers} with {asked} each"
        listed = ", ".join(
            f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
            for cpus, gpus in sorted(nodes, reverse=True)[:8]
        )
        more = f" and {len(nodes) - 8} smaller" if len(nodes) > 8 else ""
        raise UserError(
            f"resources: a stack asks for {asked}; the cluster has {len(nodes)} node(s) "
            f"({listed or 'none'}{more}), so it can never start. Lower resources.workers, cpus or "
            f"gpus, or join a larger cluster with --address."
        )
    growing = len(nodes) > len(_nodes_up())
    free_nodes = _free_nodes(0.0 if growing else _RELEASED_S)
    free = slots_of(resources, free_nodes, gpus_each=gpus_each)
    # Where others occupy everything, stacks wait for what the empty cluster has.
    usable = nodes if growing or not free else free_nodes
    return Capacity(
        cpus=sum(cpus for cpus, _ in nodes),
        gpus=sum(gpus for _, gpus in nodes),
        nodes=len(nodes),
        gpus_each=gpus_each,
        slots=slots,
        free_slots=slots if growing else max(1, min(slots, free)),
        cores=tuple(int(cpus) for cpus, gpus in usable if cpus >= 1 and gpus >= gpus_each) or (1,),
        growing=growing,
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
    return [node_of(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _free_nodes(patience_s: float) -> list[Node]:
    """What others leave free on each node; asked again for a while where that is not everything.

    Else a sweep would be planned for the cores that the one before it is about to give back.
    """
    everything = sum(map(sum, _nodes_up()))
    deadline_s = time.monotonic() + patience_s
    while True:
        free = [node_of(node) for node in free_resources_per_node()]
        if sum(map(sum, free)) >= everything or time.monotonic() >= deadline_s:
            return free
        time.sleep(0.05)


def _nodes_at_most() -> list[Node]:
    """The nodes that are up, or, if that is more, all that an autoscaler may start."""
    up, may_be = _nodes_up(), _nodes_of_autoscaler()
    return may_be if sum(map(sum, may_be)) > sum(map(sum, up)) else up


def _nodes_of_autoscaler() -> list[Node]:
    """The nodes that an autoscaler may start, as far as is known; none where there is none.

    Ray does not tell. On the head of a cluster that `ray up` made, its file
    lies beside them; elsewhere (Kubernetes) the environment says it, see docs/cluster.md.
    """
    told = os.environ.get(GROWS_TO)
    if told:
        try:
            groups = [(int(group["count"]), group) for group in json.loads(told)]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"${GROWS_TO}={told}: is not a JSON list of node groups ({error}); write e.g. "
                f'[{{"count": 4, "CPU": 4, "GPU": 1}}]'
            ) from error
    elif _RAY_UP_FILE.expanduser().is_file():
        config = yaml.safe_load(_RAY_UP_FILE.expanduser().read_text(encoding="utf-8"))
        most = config.get("max_workers", 0)
        groups = [
            (min(most, kind.get("max_workers", 0)), kind.get("resources", {}))
            for name, kind in config.get("available_node_types", {}).items()
            if name != config.get("head_node_type")
        ]
    else:
        groups = []
    nodes = [node_of(resources) for count, resources in groups for _ in range(count)]
    return [node for node in nodes if node != (0.0, 0.0)]


def node_of(resources: Mapping[str, Any]) -> Node:
    """CPUs and GPUs among a node's resources as Ray tells them."""
    return float(resources.get("CPU", 0.0)), float(resources.get("GPU", 0.0))
