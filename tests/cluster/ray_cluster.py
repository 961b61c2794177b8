"""A Ray cluster on the hosts of a Lan, brought up with `ray up` as docs/cluster.md says."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

import yaml
from netns_hosts import REPOSITORY, Host, Lan

CPUS_EACH = 2
# Every process that talks to the cluster needs it (docs/cluster.md).
RAY_ENV = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}


def local_yaml(lan: Lan) -> dict[str, Any]:
    """cluster/local.yaml with the addresses, key, user and sizes of these hosts.

    Installing is replaced by a link: the hosts see this machine's packages. Everything else is run
    as it stands in the file.
    """
    config: dict[str, Any] = yaml.safe_load((REPOSITORY / "cluster" / "local.yaml").read_text())
    head, *workers = lan.hosts
    config["provider"] |= {"head_ip": head.address, "worker_ips": [h.address for h in workers]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": lan.key}
    install = config["setup_commands"].pop()
    assert "pip install" in install
    config["setup_commands"].append(f"ln -sfn {sys.prefix} ~/vitbench-src/.venv")
    sizes = f"ray start --num-cpus={CPUS_EACH} --object-store-memory={100 * 2**20}"
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[commands] = [line.replace("ray start", sizes) for line in config[commands]]
    return config


class RayCluster:
    """What a user does with a cluster, from the desk and on its head."""

    def __init__(self, lan: Lan) -> None:
        self.lan = lan
        self.head = lan.hosts[0]

    def up(self) -> None:
        """Make a token and run `ray up`; returns before the workers have joined."""
        desk = self.lan.desk
        (desk.folder / "home" / "local.yaml").write_text(yaml.safe_dump(local_yaml(self.lan)))
        ray = f"{sys.prefix}/bin/ray"
        desk.run(ray, "get-auth-token", "--generate")
        argv = [ray, "up", "--yes", "--no-config-cache", "/mnt/home/local.yaml"]
        desk.run(*argv, cwd=str(REPOSITORY), timeout_s=120)

    def down(self) -> None:
        """Stop Ray on every host, by ssh (`ray down` leaves hosts running)."""
        for host in self.lan.hosts:
            self.lan.ssh(host, "~/vitbench-src/.venv/bin/ray stop --force")

    def python(self, code: str, *, timeout_s: float = 90) -> Any:
        """Run code on the head as a driver of the cluster; returns what it gives to `answer(x)`."""
        script = (
            "import json, time, ray\n"
            "def answer(value): print('ANSWER', json.dumps(value))\n"
            "ray.init(address='auto', logging_level='ERROR', log_to_driver=False)\n"
        ) + textwrap.dedent(code)
        done = self.head.run("python", "-c", script, env=RAY_ENV, timeout_s=timeout_s)
        (line,) = [x for x in done.stdout.splitlines() if x.startswith("ANSWER ")]
        return json.loads(line.removeprefix("ANSWER "))

    def wait_for_nodes(self, count: int, timeout_s: float = 60) -> dict[str, dict[str, float]]:
        """Wait until so many nodes are alive; returns the resources of each, by address."""
        return dict(
            self.python(
                f"""
                end = time.monotonic() + {timeout_s}
                while True:
                    nodes = [n for n in ray.nodes() if n["Alive"]]
                    if len(nodes) == {count} or time.monotonic() > end:
                        break
                    time.sleep(0.1)
                assert len(nodes) == {count}, f"{{len(nodes)}} of {count} nodes after {timeout_s} s"
                answer({{n["NodeManagerAddress"]: n["Resources"] for n in nodes}})
                """,
                timeout_s=timeout_s + 30,
            )
        )

    def kill_ray(self, host: Host) -> None:
        """Kill -9 the raylet of a host, as a lost machine would: its workers die with it."""
        host.run("pkill", "-KILL", "-x", "raylet")  # sees the processes of this host alone


def seconds(action: Callable[[], object]) -> float:
    """How long an action takes."""
    started_s = time.monotonic()
    action()
    return time.monotonic() - started_s
