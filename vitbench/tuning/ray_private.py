"""Every use of Ray's private parts, so that an upgrade of Ray is checked in one file.

tests/tuning/test_ray_private.py names each and fails where one is gone; pyproject.toml bounds
Ray's minor version for their sake.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.exceptions import OutOfMemoryError, RayActorError

if TYPE_CHECKING:  # it imports torch, which a driver of workers that train alone has no use for
    from ray.train.torch import TorchTrainer

# Asked for by what must run on the head, which is no spot machine: a share of the resource that
# Ray gives the head alone. Public in place of it, once stable: a selector of the node's labels.
ON_HEAD = {"node:__internal_head__": 0.001}


def actors(state: str) -> list[dict[str, Any]]:
    """All actors in this state (`ALIVE`, `DEAD` ...), as Ray's table has them.

    Public twin: ray.util.state.list_actors, which asks the dashboard; a local Ray has none here.
    """
    from ray._private.state import actors

    return list(actors(actor_state_name=state).values())


def is_dead(actor_id: str) -> bool:
    """Whether an actor has ended. Public twin: ray.util.state.get_actor, as for `actors`."""
    from ray._private.state import actors

    return bool(actors(actor_id).get("State") == "DEAD")


def free_resources_per_node() -> list[dict[str, float]]:
    """What is free on each node. Public twin: ray.available_resources, but of all nodes summed."""
    from ray._private.state import available_resources_per_node

    return list(available_resources_per_node().values())


def send_process_output_to(log: Callable[[Mapping[str, Any]], None]) -> None:
    """Hand `{"pid": ..., "lines": [...]}`, which Ray would print, to a function; no setting can."""
    from ray._private import worker

    def print_to_stdstream(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        log(data)

    worker.print_to_stdstream = print_to_stdstream


def trainer_without(callbacks: Collection[str]) -> type[TorchTrainer]:
    """A TorchTrainer without the helpers of these names, each a process; RunConfig only adds."""
    from ray.train.torch import TorchTrainer

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            default = super()._create_default_callbacks()  # type: ignore[misc]  # of Train V2
            return [c for c in default if type(c).__name__ not in callbacks]

    return Trainer


def is_from_train(error: BaseException) -> bool:
    """Whether Ray Train itself raised this for a worker, not the code there; none is public."""
    from ray.train.v2._internal.exceptions import RayTrainError

    return isinstance(error, RayTrainError)


def raised_by_worker(error: BaseException) -> BaseException:
    """The exception that the training code raised, where Train wrapped one; else the error."""
    inner = getattr(error, "_base_exc", None)
    return inner if isinstance(inner, BaseException) else error


def listen_on_loopback(yes: bool) -> None:
    """Let a Ray that this process starts listen on 127.0.0.1 alone, as it does on macOS.

    There is no setting on Linux: `_node_ip_address="127.0.0.1"` is replaced by the host's address.
    """
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = not yes


class KilledForMemory(RayActorError, OutOfMemoryError):
    """Ray's memory monitor ended a worker; said in one line."""

    def __init__(self, text: str) -> None:
        RayActorError.__init__(self, error_msg=text.partition("\n")[0])


def retry_after_memory_kills() -> None:
    """Let Tune take a worker that Ray killed for want of memory as one that died.

    It ends the whole run for it: OutOfMemoryError is none of the errors that it expects.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager

    def as_died(error: Any) -> Any:
        return KilledForMemory(str(error)) if type(error) is OutOfMemoryError else error

    def converted(taken: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(taken)
        def failed(*values: Any, **named: Any) -> None:
            taken(*map(as_died, values), **{name: as_died(value) for name, value in named.items()})

        return failed

    for name in ("_actor_start_failed", "_actor_task_failed"):
        taken = getattr(RayActorManager, name)
        if not hasattr(taken, "__wrapped__"):
            setattr(RayActorManager, name, converted(taken))


def leave_sigterm_alone() -> None:
    """Keep Ray from taking SIGTERM in this process: it would end with code 15 in the middle."""
    from ray._private import utils

    utils.set_sigterm_handler = lambda handler: None


class Notes:
    """Texts by name that every process of a Ray sees at once, kept by its gcs.

    Public twin: an actor, a process more that can die alone.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def put(self, name: str, text: str) -> None:
        """Write one, also over what was there."""
        from ray.experimental import internal_kv

        internal_kv._internal_kv_put(name, text, namespace=self._namespace)

    def get(self, name: str) -> str | None:
        """Read one; None where there is none."""
        from ray.experimental import internal_kv

        found: bytes | None = internal_kv._internal_kv_get(name, namespace=self._namespace)
        return None if found is None else found.decode()

    def below(self, beginning: str) -> list[str]:
        """The texts whose names begin so."""
        from ray.experimental import internal_kv

        names = internal_kv._internal_kv_list(beginning, namespace=self._namespace)
        return [text for name in names if (text := self.get(name.decode())) is not None]

    def clear(self) -> None:
        """Take all away."""
        from ray.experimental import internal_kv

        internal_kv._internal_kv_del("", del_by_prefix=True, namespace=self._namespace)


def own_processes() -> dict[str, int]:
    """The processes of the Ray that this process has started, by name; without its workers."""
    from ray._private import worker

    node: Any = worker._global_node
    found = {
        name: int(infos[0].process.pid)
        for name, infos in node.all_processes.items()
        if name in ("gcs_server", "raylet")
    }
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            title = (entry / "cmdline").read_bytes().partition(b"\0")[0].strip().decode()
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if title.endswith("Agent") and int(parent) == found.get("raylet"):
                found[title.removeprefix("ray::")] = int(entry.name)
    return found
