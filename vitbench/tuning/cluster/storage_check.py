"""Checks, before the first trial, that every node can write and read where the results go."""

from __future__ import annotations

import socket
import uuid

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vitbench.errors import UserError, in_a_line
from vitbench.storage.place import Place

_FOLDER = ".nodes"
_TIMEOUT_S = 60.0


def require_on_every_node(results: Place) -> None:
    """Let each node read a file of the driver and write one of its own, which the driver reads.

    Raises:
        UserError: if a node cannot; names it, and says what to do.
    """
    folder, token = results.child(_FOLDER), uuid.uuid4().hex
    folder.write(token, token.encode())
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    probes = {}
    for node_id in nodes:
        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        probe = _write_on_node.options(scheduling_strategy=there).remote(folder, token, node_id)
        probes[probe] = node_id
    done, late = ray.wait(list(probes), num_returns=len(probes), timeout=_TIMEOUT_S)
    failures = {probes[probe]: f"no answer within {_TIMEOUT_S:g} s" for probe in late}
    for probe in done:
        try:
            failure = ray.get(probe)
            if failure is None:
                folder.read(probes[probe])
        except (OSError, ray.exceptions.RayError) as error:
            failure = f"what it wrote does not arrive ({in_a_line(error)})"
        if failure is not None:
            failures[probes[probe]] = failure
    folder.remove_all()
    if failures:
        lines = [
            f"  {nodes[n]['NodeManagerHostname']} ({nodes[n]['NodeManagerAddress']}): {failure}"
            for n, failure in failures.items()
        ]
        fix = (
            "give the node's role access to the bucket, or its environment the keys"
            if results.in_bucket
            else "name with `storage:` a bucket, or a folder that all nodes mount at this same "
            "path (NFS), or train on this machine alone (without --address)"
        )
        raise UserError(
            f"storage: {len(failures)} of {len(nodes)} nodes cannot use {results.address}:\n"
            + "\n".join(lines)
            + f"\nCheckpoints written there would be lost. To mend it, {fix}."
        )


@ray.remote(num_cpus=0, max_retries=0)
def _write_on_node(folder: Place, token: str, node_id: str) -> str | None:
    """What this node cannot do, in words; None if it can do everything."""
    try:
        if folder.read(token).decode() != token:
            return "reads something else than the driver wrote"
    except OSError as error:  # and nothing is written: the folder is the driver's to make
        return f"does not see what the driver wrote ({in_a_line(error)})"
    try:
        folder.write(node_id, socket.gethostname().encode())
    except OSError as error:
        return f"cannot write there ({in_a_line(error)})"
    return None
