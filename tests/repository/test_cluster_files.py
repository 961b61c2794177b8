"""cluster.yaml, cluster/local.yaml and cluster/rayjob.yaml: what can be checked without a cloud."""

from __future__ import annotations

import copy
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]
RAY_UP = ("cluster.yaml", "cluster/local.yaml")


def read(name: str) -> dict[str, Any]:
    """A fresh copy of the file."""
    content = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def start_lines(config: dict[str, Any]) -> dict[str, str]:
    """The command that starts Ray on the head, and on workers."""
    found = {}
    for kind in ("head", "worker"):
        (found[kind],) = [x for x in config[f"{kind}_start_ray_commands"] if " start " in x]
    return found


def pinned(package: str) -> str:
    """The version in constraints.txt."""
    match = re.search(rf"^{package}==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert match
    return match[1]


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_accepts_the_file(name: str) -> None:
    """The file passes what `ray up` checks before it touches a machine; a wrong key does not."""
    validate_config(prepare_config(read(name)))
    wrong = read(name) | {"idle_timeout": 5}
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(prepare_config(wrong))


@pytest.mark.parametrize("name", RAY_UP)
def test_token_and_loopback(name: str) -> None:
    """Every machine starts with the token, and nothing of Ray is bound to the world on purpose."""
    config = read(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]
    lines = start_lines(config)
    for line in lines.values():
        exported = line[: line.index("ray start")]
        assert re.search(r"export [^;]*RAY_AUTH_MODE=token", exported), line
        assert re.search(r"export [^;]*RAY_USAGE_STATS_ENABLED=0", exported), line
    assert "--dashboard-host=127.0.0.1" in lines["head"]
    assert "0.0.0.0" not in (ROOT / name).read_text()


@pytest.mark.parametrize("name", RAY_UP)
def test_machines_get_what_installing_needs(name: str) -> None:
    """The mounted files exist, are all that the build reads, and the pins are used."""
    mounts = read(name)["file_mounts"]
    ours = {k: v for k, v in mounts.items() if k.startswith("~/vitbench-src/")}
    assert all((ROOT / source).exists() for source in ours.values())
    assert all(target == f"~/vitbench-src/{source}" for target, source in ours.items())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {"pyproject.toml", "constraints.txt", "vitbench", project["readme"]}
    assert needed | set(project["license-files"]) <= set(ours.values())
    (install,) = [x for x in read(name)["setup_commands"] if "pip install" in x]
    assert "-c constraints.txt -e ." in install


@pytest.mark.parametrize("name", RAY_UP)
def test_commands_are_shell(name: str) -> None:
    """Every command parses, folded lines included."""
    config = read(name)
    commands = [x for key, value in config.items() if key.endswith("_commands") for x in value]
    assert len(commands) >= 6
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_local_takes_the_autoscaler_that_starts_all_workers() -> None:
    """Version 2 counts the head among the workers of a local cluster and leaves one of them out."""
    assert "RAY_enable_autoscaler_v2=0" in start_lines(read("cluster/local.yaml"))["head"]


def test_aws_scales_from_zero_on_spot_and_opens_nothing() -> None:
    """No worker without work, a bound on their number, and no group that Ray would open to all."""
    config = read("cluster.yaml")
    nodes = config["available_node_types"]
    gpu, head = nodes["gpu"], nodes[config["head_node_type"]]
    assert gpu["min_workers"] == 0 and 1 <= gpu["max_workers"] <= config["max_workers"]
    assert gpu["resources"]["GPU"] >= 1 and head["resources"]["CPU"] == 0
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert config["provider"]["cache_stopped_nodes"] is False
    for node in nodes.values():
        # Ray adds ssh from everywhere to a group that it makes itself.
        assert node["node_config"]["SecurityGroupIds"], "Ray would make a group"
        assert node["node_config"]["IamInstanceProfile"], "Ray would make an all-powerful role"
    assert "security_group" not in config["provider"]


def test_ray_launches_the_file_on_a_simulated_aws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's AWS part accepts every setting, makes no group or role, and starts a spot machine."""
    for key, value in {
        "HOME": str(tmp_path),  # where Ray keeps the key pair that it makes
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": read("cluster.yaml")["provider"]["region"],
    }.items():
        monkeypatch.setenv(key, value)
    (tmp_path / ".ssh").mkdir()
    with mock_aws():
        from ray.autoscaler._private.aws.config import bootstrap_aws
        from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

        ec2, iam = boto3.client("ec2"), boto3.client("iam")
        group = ec2.create_security_group(GroupName="vitbench", Description="-")["GroupId"]
        image = ec2.describe_images()["Images"][0]["ImageId"]
        made = iam.create_instance_profile(InstanceProfileName="vitbench")["InstanceProfile"]
        text = (ROOT / "cluster.yaml").read_text()
        for placeholder, real in (
            ("sg-00000000000000000", group),
            ("ami-00000000000000000", image),
            ("arn:aws:iam::000000000000:instance-profile/vitbench", made["Arn"]),
        ):
            assert placeholder in text
            text = text.replace(placeholder, real)
        groups = len(ec2.describe_security_groups()["SecurityGroups"])

        config = bootstrap_aws(prepare_config(yaml.safe_load(text)))
        assert len(ec2.describe_security_groups()["SecurityGroups"]) == groups
        assert iam.list_roles()["Roles"] == []

        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        names = ("node-type", "user-node-type", "node-name", "node-status", "launch-config")
        tags = {f"ray-{name}": "-" for name in names}
        provider.create_node(config["available_node_types"]["gpu"]["node_config"], tags, 1)
        (reservation,) = ec2.describe_instances()["Reservations"]
        (machine,) = reservation["Instances"]
    assert machine["InstanceLifecycle"] == "spot"
    assert machine["InstanceType"] == "g6.xlarge"
    assert [g["GroupId"] for g in machine["SecurityGroups"]] == [group]
    assert machine["MetadataOptions"]["HttpTokens"] == "required"


def test_what_was_not_run_and_what_is_to_be_set_is_marked() -> None:
    """A reader is told what no test could run, and every placeholder is announced."""
    for name in ("cluster.yaml", "cluster/rayjob.yaml", "cluster/Dockerfile"):
        assert "NOT RUN" in (ROOT / name).read_text(), name
    for name in ("cluster.yaml", "cluster/rayjob.yaml"):
        lines = (ROOT / name).read_text().splitlines()
        for number, line in enumerate(lines):
            if re.search(r"0{8,}|registry\.example", line):
                before = "\n".join(lines[max(0, number - 8) : number + 1])
                assert "TO SET" in before, f"{name}:{number + 1}"


def missing_fields(job: dict[str, Any]) -> list[str]:
    """What KubeRay's definition of a RayJob requires and this one lacks.

    Source: the required fields and types of ray.io/v1 RayJob in KubeRay 1.5 (CRD reference).
    """
    missing = []

    def need(place: dict[str, Any], path: str, **types: type) -> None:
        for key, kind in types.items():
            if not isinstance(place.get(key), kind):
                missing.append(f"{path}.{key}")

    need(job, "", apiVersion=str, kind=str, metadata=dict, spec=dict)
    spec = job.get("spec", {})
    need(spec, "spec", entrypoint=str, rayClusterSpec=dict)
    cluster = spec.get("rayClusterSpec", {})
    need(cluster, "rayClusterSpec", rayVersion=str, headGroupSpec=dict, workerGroupSpecs=list)
    head = cluster.get("headGroupSpec", {})
    need(head, "headGroupSpec", rayStartParams=dict, template=dict)
    groups = cluster.get("workerGroupSpecs", [])
    for group in groups:
        need(group, "workerGroupSpecs", groupName=str, minReplicas=int, maxReplicas=int)
        need(group, "workerGroupSpecs", rayStartParams=dict, template=dict)
    for group in (head, *groups):
        pod = group.get("template", {}).get("spec", {})
        need(pod, "template.spec", containers=list)
        for container in pod.get("containers", []):
            need(container, "container", name=str, image=str, resources=dict)
        # A map of strings: numbers are refused by the API server.
        values = group.get("rayStartParams", {}).values()
        missing += [f"rayStartParams: {x!r} is no string" for x in values if type(x) is not str]
    return missing


def test_rayjob_has_what_kuberay_requires() -> None:
    """The RayJob has every required field; the check notices one that is gone."""
    job = read("cluster/rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert missing_fields(job) == []
    broken = copy.deepcopy(job)
    del broken["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["groupName"]
    broken["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    assert len(missing_fields(broken)) == 2


def test_rayjob_scales_from_zero_with_a_token_and_goes() -> None:
    """It costs nothing after the sweep, lets nobody in, and runs the version that was tested."""
    spec = read("cluster/rayjob.yaml")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True and spec["activeDeadlineSeconds"] > 0
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    (group,) = cluster["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
    (worker,) = group["template"]["spec"]["containers"]
    assert worker["resources"]["limits"] == worker["resources"]["requests"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    base = re.search(r"^FROM \S+:(\S+?)-py", (ROOT / "cluster/Dockerfile").read_text(), re.M)
    assert base and base[1] == cluster["rayVersion"] == pinned("ray")


def test_rayjob_entrypoint_is_a_command_of_ours() -> None:
    """The sweep that it names exists and the command line is one that vitbench takes."""
    from vitbench.commands.request import build_parser

    words = shlex.split(read("cluster/rayjob.yaml")["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "vitbench.sweep"]
    args = build_parser().parse_args(words[3:])
    assert (ROOT / args.file).is_file()
    assert args.address == "auto"
