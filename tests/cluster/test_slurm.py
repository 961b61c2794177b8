"""cluster/slurm.sbatch on three hosts, with an srun and an scontrol that know ssh alone."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from netns_hosts import REPOSITORY, SHARED, Lan, why_not

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SWEEP = """
name: slurm
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 2, batch_size: 64, train_images: 300, val_images: 60, test_images: 60}
search: {space: {lr: [0.001, 0.01, 0.1], seed: [0, 1]}}
stack_size: 1
attention: {top: 0}
"""
# Slurm starts a task a node in the directory of the job, with its environment, and ends with the
# largest exit code. Only what the script uses is understood.
SRUN = """#!/bin/bash
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
while [[ $1 = --* ]]; do
    [[ $1 = --nodelist=* ]] && hosts=${1#*=}
    shift
done
declare -a jobs
for host in $hosts; do
    exports=$(export -p | grep -E ' (HOME=|PYTHONPATH=|RAY_|SLURM_|VITBENCH_|PATH=)')
    command="$exports; cd $PWD && $(printf ' %q' "$@")"
    ssh -n -i /mnt/home/.ssh/vitbench -o StrictHostKeyChecking=no "root@$host" "$command" &
    jobs+=($!)
done
worst=0
for job in "${jobs[@]}"; do
    wait "$job" || { code=$?; ((code > worst)) && worst=$code; }
done
exit "$worst"
"""
SCONTROL = """#!/bin/bash
[[ "$1 $2" = "show hostnames" ]] && tr , '\\n' <<< "$3"
"""


@pytest.fixture
def alone() -> Iterator[Lan]:
    """Hosts of their own: the script starts Ray where none runs."""
    if reason := why_not():
        pytest.skip(reason)
    with Lan(3) as made:
        yield made


def sbatch(lan: Lan, *arguments: str) -> tuple[int, str]:
    """Run the script as the first node of a job does; returns its exit code and what it says."""
    tools = lan.desk.folder / "home" / "bin"
    tools.mkdir(exist_ok=True)
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    env = {
        "PATH": f"/mnt/home/bin:{sys.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "VITBENCH_VENV": sys.prefix,
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(SHARED),  # as the home of a Slurm cluster is
        "RAY_OBJECT_STORE_MEMORY": str(100 * 2**20),
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": ",".join(host.name for host in lan.hosts),
        "SLURM_JOB_NUM_NODES": str(len(lan.hosts)),
        "SLURM_CPUS_PER_TASK": "1",
    }
    script = REPOSITORY / "cluster" / "slurm.sbatch"
    done = lan.desk.run(
        "bash", script, *arguments, env=env, cwd=str(REPOSITORY), timeout_s=240, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_script_runs_a_sweep_over_the_allocation(alone: Lan) -> None:
    """Results lie in shared storage, Ray is gone everywhere; bad input has its exit code."""
    shared = alone.base / "shared"
    (shared / "slurm.yaml").write_text(SWEEP)
    sweep, storage = str(SHARED / "slurm.yaml"), f"storage={SHARED}/out"
    code, output = sbatch(alone, sweep, "--set", storage)
    assert code == 0, output
    (table,) = (shared / "out").glob("slurm/*/trials.parquet")
    assert set(pd.read_parquet(table)["status"]) == {"finished"}, output
    for host in alone.hosts:
        assert "raylet" not in host.run("ps", "-e", "-o", "comm").stdout
    code, output = sbatch(alone, sweep, "--set", "train.epochs=0")
    assert code == 2 and "train.epochs=0: must be at least 1" in output, output


def test_every_line_is_bash() -> None:
    """The script parses, and says which part of it no test could run."""
    text = (REPOSITORY / "cluster" / "slurm.sbatch").read_text()
    assert "NOT RUN" in text and shlex.split(text.splitlines()[0][2:]) == ["/bin/bash"]
    assert Path(REPOSITORY / "cluster" / "slurm.sbatch").read_bytes().startswith(b"#!/bin/bash\n")
