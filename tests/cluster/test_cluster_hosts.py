"""`ray up cluster/local.yaml` on three hosts made of namespaces, and what they show the network."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from netns_hosts import Lan, why_not
from ray_cluster import CPUS_EACH, RAY_ENV, RayCluster

pytestmark = pytest.mark.cluster


def test_hosts_are_apart_and_leave_nothing_behind() -> None:
    """A host has its own network, processes, home and /tmp; afterwards the machine is as before."""
    reason = why_not()
    if reason:
        pytest.skip(reason)

    def machine() -> tuple[str, list[str], list[str]]:
        links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True)
        return links.stdout, sorted(os.listdir(Path.home())), sorted(os.listdir("/run"))

    before = machine()
    with Lan(2) as lan:
        first, second = lan.hosts
        assert lan.ssh(first, "hostname; echo $HOME").split() == ["h1", "/mnt/home"]
        with tempfile.NamedTemporaryFile() as ours:  # in this machine's /tmp
            assert lan.ssh(second, f"test -e {ours.name} || echo apart").strip() == "apart"
        processes = first.run("ps", "-e", "-o", "comm=").stdout.split()
        assert "bash" in processes and len(processes) < 10, processes
        lan.cut(second)
        with pytest.raises(RuntimeError, match="timed out"):
            lan.ssh(second, "true")
        lan.mend(second)
        assert lan.ssh(second, "echo back").strip() == "back"
        ids = [host.init_pid for host in (*lan.hosts, lan.desk)]
        base = lan.base
    assert not base.exists()
    assert not [pid for pid in ids if Path(f"/proc/{pid}").exists()]
    assert machine() == before


def test_ray_up_joins_three_hosts(cluster: RayCluster) -> None:
    """Every host joins with its CPUs and runs tasks (trap: version 2 leaves a worker out)."""
    resources = cluster.wait_for_nodes(3)
    assert sorted(resources) == [host.address for host in cluster.lan.hosts]
    assert {node["CPU"] for node in resources.values()} == {CPUS_EACH}
    ran_on = cluster.python(
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        @ray.remote
        def where():
            import socket
            return socket.gethostname()

        on = [On(n["NodeID"], soft=False) for n in ray.nodes()]
        answer(sorted(ray.get([where.options(scheduling_strategy=s).remote() for s in on])))
        """
    )
    assert ran_on == ["h1", "h2", "h3"]


def test_nobody_gets_in_without_the_token(cluster: RayCluster) -> None:
    """Who has no token can neither connect nor submit; the dashboard is on loopback."""
    other = cluster.lan.hosts[1]
    ask = ["ray", "health-check", "--address", f"{cluster.head.address}:6379"]
    assert other.run(*ask, env=RAY_ENV).returncode == 0
    refused = other.run(*ask, env={**RAY_ENV, "RAY_AUTH_TOKEN": "0" * 64}, check=False)
    assert refused.returncode != 0
    assert "InvalidAuthToken" in refused.stderr

    listening = cluster.head.run("ss", "-ltnH").stdout.splitlines()
    addresses = [line.split()[3] for line in listening]
    assert [x for x in addresses if x.endswith(":8265")] == ["127.0.0.1:8265"]
    submit = """
        import urllib.error, urllib.request
        job = urllib.request.Request("http://127.0.0.1:8265/api/jobs/", b'{"entrypoint": "id"}')
        try:
            answer(urllib.request.urlopen(job).status)
        except urllib.error.HTTPError as error:
            answer(error.code)
        """
    assert cluster.python(submit) == 401
    # These the docs tell to keep behind a firewall: the token alone protects them.
    assert any(x.endswith(":6379") and not x.startswith("127.") for x in addresses)
