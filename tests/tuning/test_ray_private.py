"""A new Ray still has every private part that is used, and no other module uses one."""

from __future__ import annotations

import ast
import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster
from ray.experimental import internal_kv as kv
from ray.train.torch import TorchTrainer
from ray.train.v2._internal import exceptions

from vitbench.tuning import ray_private

ROOT = Path(__file__).parents[2] / "vitbench"
ALLOWED = {ROOT / "tuning" / "ray_private.py"}


def test_the_names_are_there() -> None:
    """Without a running Ray: what is imported, replaced or overridden by name."""
    from ray._private import node, ray_constants, services, utils, worker
    from ray._private.state import actors, available_resources_per_node

    assert callable(actors) and callable(available_resources_per_node)
    assert callable(worker.print_to_stdstream)
    assert "_create_default_callbacks" in dir(TorchTrainer), "of Train V2"
    assert isinstance(ray_constants.ENABLE_RAY_CLUSTER, bool)
    assert "ENABLE_RAY_CLUSTER" in inspect.getsource(services.get_node_ip_address)
    for module in (node, worker):
        source = inspect.getsource(module)
        assert "ray._private.utils.set_sigterm_handler(" in source
        assert "signal.signal(" not in source
    assert callable(utils.set_sigterm_handler)
    assert {f"_internal_kv_{name}" for name in ("put", "get", "list", "del")} <= set(dir(kv))
    helper = "vitbench-test"
    trainer = ray_private.trainer_without([helper])
    assert trainer._create_default_callbacks is not TorchTrainer._create_default_callbacks


def test_a_workers_error_is_unwrapped() -> None:
    """What the training code raised comes out; Train's own errors are known as such."""
    raised = ValueError("of the training code")
    wrapped = exceptions.UserExceptionWithTraceback(raised, "traceback")
    assert ray_private.raised_by_worker(wrapped) is raised
    assert ray_private.raised_by_worker(raised) is raised
    assert ray_private.is_from_train(wrapped) and not ray_private.is_from_train(raised)


def test_a_worker_killed_for_want_of_memory_is_one_that_died() -> None:
    """Its stack is tried again; Tune would end the whole run."""
    from ray.air.execution._internal.actor_manager import RayActorManager

    told: list[object] = []
    actor = SimpleNamespace(actor_id=1, _on_error=lambda actor, error: told.append(error))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=None)
    error = ray.exceptions.OutOfMemoryError("2 workers were killed\nand pages of why")
    ray_private.retry_after_memory_kills()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayActorManager, "__init__", lambda self: None)
        patch.setattr(RayActorManager, "_cleanup_actor", lambda self, tracked_actor: None)
        manager = RayActorManager()
        manager._failed_actor_ids = set()
        manager._actor_start_failed(tracked_actor=actor, exception=error)
        manager._actor_task_failed(task, error)
    heard, again = told
    assert type(again) is type(heard)
    again = pickle.loads(pickle.dumps(heard))  # as Tune keeps it
    assert isinstance(again, ray.exceptions.RayActorError), "which Tune tries again"
    assert isinstance(again, ray.exceptions.OutOfMemoryError), "which the record tells"
    assert str(again) == "2 workers were killed"


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[str]:
    """A head without CPUs and a node with two, which has the more memory: where Ray would rather
    place what asks for little. The id of the head."""
    ray.shutdown()  # the one that other tests share; the next that needs it starts it again
    made = Cluster()
    head = made.add_node(num_cpus=0, memory=100 * 2**20, object_store_memory=80 * 2**20)
    made.add_node(num_cpus=2, object_store_memory=80 * 2**20)
    ray.init(address=made.address, logging_level="ERROR", log_to_driver=False)
    made.wait_for_nodes()
    try:
        yield head.node_id
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.mark.ray
@pytest.mark.alone
def test_what_is_asked_of_a_cluster(two_nodes: str) -> None:
    """Free resources node by node; an actor is alive until it was killed."""
    free = ray_private.free_resources_per_node()
    assert sorted(node.get("CPU", 0.0) for node in free) == [0.0, 2.0]

    @ray.remote(num_cpus=0)
    class Actor:
        def own_id(self) -> str:
            return str(ray.get_runtime_context().get_actor_id())

    actor = Actor.remote()
    actor_id = ray.get(actor.own_id.remote())
    assert not ray_private.is_dead(actor_id)
    assert actor_id in {alive["ActorID"] for alive in ray_private.actors("ALIVE")}
    assert {"Pid", "ActorClassName"} <= ray_private.actors("ALIVE")[0].keys()


@pytest.mark.ray
@pytest.mark.alone
def test_tune_functions_that_only_drive_workers_run_on_the_head(
    two_nodes: str, tmp_path: Path
) -> None:
    """Three at once, and every one is on the head: other nodes may be spot machines."""

    def where(config: dict[str, int]) -> None:
        tune.report({"node": ray.get_runtime_context().get_node_id()})

    results = tune.Tuner(
        tune.with_resources(where, {"cpu": 0, **ray_private.ON_HEAD}),
        param_space={"n": tune.grid_search([0, 1, 2])},
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert [(results[n].metrics or {}).get("node") for n in range(3)] == [two_nodes] * 3


def private_uses(path: Path) -> Iterator[str]:
    """Imports below a private package of Ray, and its private attributes by name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        for module in modules:
            if module.startswith("ray.") and any(p.startswith("_") for p in module.split(".")):
                yield module
        name = getattr(node, "attr", getattr(node, "name", getattr(node, "value", None)))
        private = ("_private", "_internal", "_create_default_callbacks", "_base_exc")
        if name in private or str(name).startswith("_internal_kv"):
            yield str(name)


def test_no_other_module_touches_a_private_part() -> None:
    """A new use would be missed by this file, and break with an upgrade."""
    users = {path for path in ROOT.rglob("*.py") if list(private_uses(path))}
    assert users <= ALLOWED and ROOT / "tuning" / "ray_private.py" in users


def test_ray_reads_our_setting_of_uv() -> None:
    """Under `uv run` Ray would upload the folder and run `uv run` for every worker; it reads the
    setting at import, so importing any module of ours that imports ray must come after it."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ENABLE_UV_RUN_RUNTIME_ENV"}
    code = (
        "import vitbench.{}\n"
        "from ray._private import ray_constants as c\n"
        "print(c.RAY_ENABLE_UV_RUN_RUNTIME_ENV)"
    )
    for module in ("tuning.runner", "bench.ray_sides"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(module)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "False", module
