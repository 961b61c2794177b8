"""Sweeps over three hosts: a host that vanishes mid-sweep, and a stack whose workers are on two."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from netns_hosts import SHARED, Host
from ray_cluster import CPUS_EACH, RAY_ENV, RayCluster

sys.path.insert(0, str(Path(__file__).parents[1]))
import sweep_runs

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SWEEP = """
name: hosts
dataset: {name: digits, image_size: 8}
models:
  vit: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
  own: {build: "own_net:Net"}
train: {epochs: 100, batch_size: 8, train_images: 300, val_images: 60, test_images: 60}
search: {space: {model: [vit, own], lr: [0.0003, 0.001, 0.003]}}
checkpoints: {every_s: 0}
stack_size: 1
attention: {top: 0}
max_failures: 10
"""
# A model of the user's, whose file lies on the head alone.
OWN = """
from torch import nn


class Net(nn.Module):
    def __init__(self, *, channels, image_size, outputs):
        super().__init__()
        self.rows = nn.TransformerEncoderLayer(image_size, 2, 8, dropout=0.0, batch_first=True)
        self.head = nn.Linear(image_size, outputs)

    def forward(self, images):
        return self.head(self.rows(images[:, 0]).mean(dim=1))
"""
PAIR = """
name: pair
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train:
  {epochs: 3, batch_size: 64, precision: float32, train_images: 300, val_images: 60, test_images: 9}
search: {space: {lr: [0.001, 0.003]}}
attention: {top: 0}
"""


class ClusterSweep:
    """A sweep with `--address auto` out of the head's home, with results in the shared folder."""

    def __init__(self, cluster: RayCluster, text: str, name: str, *arguments: str) -> None:
        home = cluster.head.folder / "home"
        (home / f"{name}.yaml").write_text(text)
        (home / "own_net.py").write_text(OWN)
        self._folder = cluster.lan.base / "shared" / name
        argv = [
            "python", "-m", "vitbench.sweep", f"{name}.yaml", "--address", "auto",
            "--set", f"storage={SHARED}/{name}", *arguments,
        ]  # fmt: skip
        self._done: subprocess.CompletedProcess[str] | None = None
        self._thread = threading.Thread(target=self._run, args=(cluster.head, argv))
        self._thread.start()

    def _run(self, head: Host, argv: list[str]) -> None:
        self._done = head.run(*argv, env=RAY_ENV, timeout_s=240, check=False)

    @property
    def out(self) -> Path:
        """The results, as this machine sees them."""
        return self._folder

    def begun(self) -> int:
        """Trials of which the ledger has an epoch."""
        files = list(self._folder.glob("*/*/ledger.jsonl"))
        lines = files[0].read_text().splitlines() if files else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]
        return len({row["trial_id"] for row in rows if row["kind"] == "epoch"})

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 120) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition() and self._thread.is_alive():
            assert time.monotonic() < deadline_s, "the sweep did not come so far"
            time.sleep(0.05)

    def finish(self) -> tuple[int, str]:
        """Exit code and everything printed."""
        self._thread.join()
        assert self._done is not None
        return self._done.returncode, self._done.stdout + self._done.stderr


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sweep on this machine alone, undisturbed."""
    folder = tmp_path_factory.mktemp("calm")
    (folder / "hosts.yaml").write_text(SWEEP)
    (folder / "own_net.py").write_text(OWN)
    code, output = sweep_runs.sweep(str(folder / "hosts.yaml"), "--out", str(folder))
    assert code == 0, output
    return folder


@pytest.fixture
def whole(cluster: RayCluster) -> Iterator[RayCluster]:
    """The cluster with all its hosts, before and after a test that takes one away."""
    cluster.wait_for_nodes(3)
    yield cluster
    for host in cluster.lan.hosts:
        cluster.lan.mend(host)


def same_tables(found: Path, expected: Path) -> None:
    for one, two in zip(
        sweep_runs.tables_of(sweep_runs.results_of(found)),
        sweep_runs.tables_of(sweep_runs.results_of(expected)),
        strict=True,
    ):
        pd.testing.assert_frame_equal(one, two, check_exact=False, rtol=1e-5)


def test_a_host_that_is_cut_off_costs_nothing(whole: RayCluster, calm: Path) -> None:
    """Its plug is pulled while its trials train: they go on elsewhere, each epoch counted once.

    Half of them are of a model of the user's, whose code came from the head to every host.
    """
    run = ClusterSweep(whole, SWEEP, "cut")
    # All of them train now, those on the third host too; none is near its end.
    run.wait_for(lambda: run.begun() == 6)
    whole.lan.cut(whole.lan.hosts[2])
    code, output = run.finish()
    assert code == 0, output
    same_tables(run.out, calm)
    trials, epochs = sweep_runs.tables_of(sweep_runs.results_of(run.out))
    assert trials["status"].tolist() == ["finished"] * 6
    assert epochs.groupby("trial_id")["epoch"].agg(list).map(lambda e: e == [*range(1, 101)]).all()
    assert "going on from the last checkpoint" in output, output


def test_a_stack_on_two_hosts_trains_like_one_process(whole: RayCluster, tmp_path: Path) -> None:
    """Two workers that do not fit on one host beside each other; the curves are one worker's."""
    file = tmp_path / "pair.yaml"
    file.write_text(PAIR)
    code, output = sweep_runs.sweep(str(file), "--out", str(tmp_path / "solo"))
    assert code == 0, output
    cpus = f"resources={{workers: 2, cpus: {CPUS_EACH - 0.5}, gpus: 0}}"
    run = ClusterSweep(whole, PAIR, "pair", "--set", cpus)
    code, output = run.finish()
    assert code == 0, output
    for one, two in zip(
        sweep_runs.tables_of(sweep_runs.results_of(run.out)),
        sweep_runs.tables_of(sweep_runs.results_of(tmp_path / "solo")),
        strict=True,
    ):
        numbers = two.select_dtypes("number").columns
        pd.testing.assert_frame_equal(one[numbers], two[numbers], rtol=1e-3)
