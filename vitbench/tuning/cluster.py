"""Start or join Ray, quietly, and say how many stacks it holds side by side."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from vitbench.config import Resources
from vitbench.errors import UserError
from vitbench.hardware import ALLOCATOR_ENV
from vitbench.tuning.packing import gpus_per_stack, node_slots

_RAY_ENV = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # also silences a warning about a changed default
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger replaces Tune's own per-trial files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the runner stops trials at the end of an epoch itself
    "TUNE_WARN_THRESHOLD_S": "5",
}
# Images travel through a memory-mapped cache, so Ray's object store holds only small messages.
_OBJECT_STORE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Capacity:
    """What the cluster has in whole, and how many stacks of the sweep fit side by side."""

    cpus: float
    gpus: float
    nodes: int
    slots: int


@contextmanager
def connect(address: str | None, *, verbose: bool) -> Iterator[None]:
    """Join the Ray cluster at `address` (or $RAY_ADDRESS), else start a local one.

    The local one has no dashboard and ends with the block; a joined one is left running.

    Raises:
        UserError: if there is no cluster at the address.
    """
    for key, value in {**ALLOCATOR_ENV, **_RAY_ENV}.items():
        os.environ.setdefault(key, value)
    if not verbose:
        for name in ("ray", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=r"ray\..*")
    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {
        "logging_level": "INFO" if verbose else "ERROR",
        "log_to_driver": verbose,
        "configure_logging": verbose,
    }
    try:
        if address:
            ray.init(address=address, **options)
        else:
            ray.init(include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if not address:
            raise
        raise UserError(
            f"--address {address}: no Ray cluster answers there ({error}); start one with "
            f"`ray start --head`, or leave --address out to run on this machine alone."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def capacity(resources: Resources) -> Capacity:
    """How many stacks the connected cluster can hold at once, counted node by node.

    Raises:
        UserError: if not even one stack fits on any node.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [node.get("CPU", 0.0) for node in nodes]
    gpus = [node.get("GPU", 0.0) for node in nodes]
    gpus_each = gpus_per_stack(resources, sum(gpus))
    slots = sum(
        node_slots(resources, cpus=c, gpus=g, gpus_each=gpus_each)
        for c, g in zip(cpus, gpus, strict=True)
    )
    if slots == 0:
        raise UserError(
            f"resources: a stack asks for cpus={resources.cpus:g}, gpus={gpus_each:g}, but the "
            f"largest of the {len(nodes)} node(s) has {max(cpus, default=0):g} CPUs and "
            f"{max(gpus, default=0):g} GPUs; it can never start. Lower resources.cpus or "
            f"resources.gpus, or join a larger cluster with --address."
        )
    return Capacity(cpus=sum(cpus), gpus=sum(gpus), nodes=len(nodes), slots=slots)


def run_a_task(*, timeout_s: float) -> None:
    """Let the connected cluster run one empty task.

    Raises:
        ray.exceptions.GetTimeoutError: if it does not answer in time.
    """
    ray.get(ray.remote(lambda: None).remote(), timeout=timeout_s)
