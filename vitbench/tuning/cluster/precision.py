"""What `train.precision: auto` stands for in a sweep: every node that trains is asked, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vitbench import hardware
from vitbench.config import Resources, Sweep
from vitbench.errors import in_a_line
from vitbench.plan.stacks import slots_of
from vitbench.records.history import History
from vitbench.records.types import Decided
from vitbench.tuning.cluster.capacity import Capacity, node_of

_TIMEOUT_S = 60.0


def leaves_precision_open(sweep: Sweep) -> bool:
    """Whether any trial of the sweep leaves its precision to the hardware."""
    axis = sweep.search.space.get("precision", [sweep.train.precision])
    return isinstance(axis, list) and "auto" in axis


def decide(resources: Resources, cluster: Capacity) -> Decided:
    """bfloat16 where every node that trains is fast in it, else float32, and why.

    Nodes that an autoscaler has yet to start cannot be asked. On CPUs float32 is then taken, which
    no processor is slow in; on GPUs what those that are up can do, bfloat16 where there is none:
    GPUs have been fast in it since 2020.
    """
    on_gpu = cluster.gpus_each > 0
    alone = resources.model_copy(update={"workers": 1})
    nodes = {
        node["NodeID"]: node
        for node in ray.nodes()
        if node["Alive"]
        and slots_of(alone, [node_of(node["Resources"])], gpus_each=cluster.gpus_each)
    }
    what = "GPU" if on_gpu else "processor"
    if cluster.growing and not on_gpu:
        return Decided(precision="float32", because="nodes to come cannot be asked for AMX")
    for node_id, slow in _answers(nodes, on_gpu=on_gpu).items():
        if slow:
            name = nodes[node_id].get("NodeManagerHostname", node_id)
            where = f" on {name}" if len(nodes) > 1 else ""
            return Decided(precision="float32", because=slow + where)
    if not nodes:
        return Decided(precision="bfloat16", because="no GPU is up yet to be asked")
    which = f"each {what} that trains" if len(nodes) > 1 else f"this {what}"
    return Decided(precision="bfloat16", because=f"{which} is fast in it")


def kept(now: Decided, history: History, *, on_gpu: bool) -> Decided:
    """The precision with which a sweep began, where it did; else that of now.

    A sweep of a version that decided nothing trained in float32 on CPUs.
    """
    before = history.decided
    if before is None and history.curves and not on_gpu:
        before = Decided(precision="float32", because="a sweep of an earlier version")
    if before is None or before.precision is None:
        return now
    if before.precision == now.precision:
        return before
    return replace(before, because=f"as the sweep began, though now: {now.because}")


def _answers(nodes: Mapping[str, Any], *, on_gpu: bool) -> dict[str, str]:
    """Why each node is slow in bfloat16, by its id; empty where it is not."""
    here = ray.get_runtime_context().get_node_id()
    answers, asked = {}, {}
    for node_id in nodes:
        if node_id == here:
            answers[node_id] = hardware.slow_in_bfloat16(on_gpu=on_gpu)
            continue
        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        asked[_ask.options(scheduling_strategy=there).remote(on_gpu)] = node_id
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=_TIMEOUT_S)
    for reference in done:
        try:
            answers[asked[reference]] = ray.get(reference)
        except ray.exceptions.RayError as error:
            answers[asked[reference]] = f"no answer ({in_a_line(error)})"
    for reference in late:
        answers[asked[reference]] = f"no answer within {_TIMEOUT_S:g} s"
    return answers


@ray.remote(num_cpus=0, max_retries=0)
def _ask(on_gpu: bool) -> str:
    """The answer of the node that this runs on."""
    return hardware.slow_in_bfloat16(on_gpu=on_gpu)
