"""Every use of Ray's private parts, so that an upgrade of Ray is checked in one file.

tests/tuning/test_ray_private.py names each and fails where one is gone; pyproject.toml bounds
Ray's minor version for their sake.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

if (
    TYPE_CHECKING
):  # it imports torch, which a driver that trains on one worker a stack has no use for
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
