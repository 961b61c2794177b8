"""Before the first trial: every node shows that it can write and read where the results go."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vitbench.errors import UserError
from vitbench.storage.checkpoints import Bucket

_FOLDER = ".nodes"
_TIMEOUT_S = 60.0


def require_on_every_node(place: Path | Bucket) -> None:
    """Let each node read a mark of the driver and write one of its own, which the driver reads.

    Raises:
        UserError: if a node cannot; names it, and says what to do.
    """
    mark = uuid.uuid4().hex
    _write(place, mark, mark)
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    probes = {
        _probe.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
        ).remote(place, mark, node_id): node_id
        for node_id in nodes
    }
    done, late = ray.wait(list(probes), num_returns=len(probes), timeout=_TIMEOUT_S)
    failures = {probes[probe]: f"no answer within {_TIMEOUT_S:g} s" for probe in late}
    for probe in done:
        failure = _result(place, probe, mark, probes[probe])
        if failure is not None:
            failures[probes[probe]] = failure
    _remove(place, [mark, *(f"{mark}-{node_id}" for node_id in nodes)])
    if failures:
        where = place.uri if isinstance(place, Bucket) else str(place)
        lines = [
            f"  {nodes[n]['NodeManagerHostname']} ({nodes[n]['NodeManagerAddress']}): {failure}"
            for n, failure in failures.items()
        ]
        fix = (
            "give the node's role access to the bucket, or its environment the keys"
            if isinstance(place, Bucket)
            else "name with `storage:` a bucket, or a folder that all nodes mount at this same "
            "path (NFS), or train on this machine alone (without --address)"
        )
        raise UserError(
            f"storage: {len(failures)} of {len(nodes)} nodes cannot use {where}:\n"
            + "\n".join(lines)
            + f"\nCheckpoints written there would be lost. To mend it, {fix}."
        )


@ray.remote(num_cpus=0, max_retries=0)
def _probe(place: Path | Bucket, mark: str, node_id: str) -> str | None:
    """What this node cannot do, in words; None if it can do everything."""
    try:
        if _read(place, mark) != mark:
            return "reads something else than the driver wrote"
    except OSError as error:
        return f"does not see what the driver wrote ({_reason(error)})"
    try:
        _write(place, f"{mark}-{node_id}", socket.gethostname())
    except OSError as error:
        return f"cannot write there ({_reason(error)})"
    return None


def _result(place: Path | Bucket, probe: object, mark: str, node_id: str) -> str | None:
    try:
        failure: str | None = ray.get(probe)  # type: ignore[call-overload]
        if failure is None:
            _read(place, f"{mark}-{node_id}")
    except (OSError, ray.exceptions.RayError) as error:
        return f"what it wrote does not arrive ({_reason(error)})"
    return failure


def _write(place: Path | Bucket, name: str, text: str) -> None:
    if isinstance(place, Bucket):
        place.child(_FOLDER).write(name, text.encode())
    else:
        (place / _FOLDER).mkdir(exist_ok=True)  # not the folder above: it is the driver's
        (place / _FOLDER / name).write_text(text, encoding="utf-8")


def _read(place: Path | Bucket, name: str) -> str:
    if isinstance(place, Bucket):
        return place.child(_FOLDER).read(name).decode()
    return (place / _FOLDER / name).read_text(encoding="utf-8")


def _remove(place: Path | Bucket, names: list[str]) -> None:
    if isinstance(place, Bucket):
        place.child(_FOLDER).remove(names)
        return
    for name in names:
        (place / _FOLDER / name).unlink(missing_ok=True)
    (place / _FOLDER).rmdir()


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
