"""CPUs of stacks: the sweep file's word, the plan of `auto`, and what a resume keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import ray
import sweep_runs
import tiny

from vitbench import hardware
from vitbench.config import Resources, load_sweep
from vitbench.plan import StackPlan, expand
from vitbench.tuning import stack_cpus
from vitbench.tuning.stack_cpus import StackCpus

SWEEP = """
name: tiny
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 2, batch_size: 64, train_images: 128, val_images: 50, test_images: 50}
search: {space: {lr: [0.01, 0.001, 0.1]}}
stack_size: 1
attention: {top: 0}
"""


def plans(count: int) -> list[StackPlan]:
    return [tiny.plan({"seed": seed}) for seed in range(count)]


@pytest.fixture
def last_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan for tiny stacks that real ones would have: the last on two threads."""

    def plan(stacks: Sequence[StackPlan], nodes: Sequence[int]) -> list[int]:
        return [1] * (len(stacks) - 1) + [2]

    monkeypatch.setattr(stack_cpus, "plan_threads", plan)


def test_auto_follows_the_plan_and_numbers_are_taken_as_they_are(last_is_wide: None) -> None:
    """On GPUs and with several workers auto is 1."""
    three = plans(3)
    planned = StackCpus(Resources(), [2], {}, on_cpus=True)
    planned.plan(three)
    assert [planned(plan) for plan in three] == [1, 1, 2]
    fixed = StackCpus(Resources(cpus=1.5), [2], {three[0].members[0].trial_id: 2}, on_cpus=True)
    fixed.plan(three)
    assert [fixed(plan) for plan in three] == [1.5] * 3
    on_gpu = StackCpus(Resources(), [8], {}, on_cpus=False)
    on_gpu.plan(three)
    assert [on_gpu(plan) for plan in three] == [1, 1, 1]


def test_what_was_planned_before_is_kept(last_is_wide: None) -> None:
    """As far as a node has the CPUs; where it does not, the stack is named."""
    old, *new = plans(4)
    found = StackCpus(Resources(), [2], {old.members[0].trial_id: 8}, on_cpus=True)
    found.plan(new)
    assert [found(plan) for plan in (old, *new)] == [2, 1, 1, 2]
    assert found.too_many([old, *new]) == [old]


def test_a_search_shares_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three suggestions on 16 cores; a resume on another machine keeps their number."""
    monkeypatch.setattr(stack_cpus, "parallel_share", lambda plan: 0.8)
    (plan,) = plans(1)
    found = StackCpus(Resources(), [16], {}, on_cpus=True)
    assert found.plan_any(3) == 5 and found(plan) == 5
    resumed = StackCpus(Resources(), [64], {}, on_cpus=True)
    assert resumed.plan_any(3, before=5) == 5 and resumed(plan) == 5
    assert StackCpus(Resources(cpus=2), [16], {}, on_cpus=True).plan_any(3) is None


@pytest.mark.slow
@pytest.mark.ray
def test_what_was_decided_at_the_start_is_kept_elsewhere(
    local_ray: None, last_is_wide: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune starts each stack with its CPUs; a resume keeps threads and precision.

    Begun on a processor with AMX, ended and extended on one without.
    """
    if ray.cluster_resources()["CPU"] < 2:
        pytest.skip("one core")
    file, out = tmp_path / "tiny.yaml", tmp_path / "out"
    file.write_text(SWEEP)
    monkeypatch.setattr(hardware, "has_amx", lambda: True)
    code, output = sweep_runs.sweep_here(str(file), "--out", str(out))
    assert code == 0, output
    assert "precision: bfloat16 (this processor is fast in it)" in output
    assert "1 thread each, the last stack 2" in output
    folder = sweep_runs.results_of(out)
    trials = pd.read_parquet(folder / "trials.parquet")
    assert list(trials["threads"]) == [1, 1, 2] and set(trials["status"]) == {"finished"}

    # The driver dies before the last one is done: its end is not in the ledger.
    lines = (folder / "ledger.jsonl").read_text().splitlines(keepends=True)
    last = trials["trial_id"].iloc[-1]
    kept = [
        line
        for line in lines
        if json.loads(line).get("trial_id") != last or '"kind": "trial"' in line
    ]
    (folder / "ledger.jsonl").write_text("".join(kept))
    monkeypatch.setattr(hardware, "has_amx", lambda: False)
    file.write_text(SWEEP.replace("0.001, 0.1]", "0.001, 0.1, 1.0]"))
    code, output = sweep_runs.sweep_here(str(file), "--out", str(out), "--resume")
    assert code == 0, output
    assert "precision: bfloat16 (as the sweep began, though now: no AMX)" in output
    again = pd.read_parquet(folder / "trials.parquet")
    assert list(again["threads"])[:3] == [1, 1, 2]
    assert list(again["train_loss"])[:3] == list(trials["train_loss"])
    assert list(again["precision_used"]) == ["bfloat16"] * 4
    assert set(again["precision"]) == {"auto"}
    assert list(again["trial_id"]) == [trial.trial_id for trial in expand(load_sweep(file))]
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["decided"]["precision"] == "bfloat16"
    assert environment["decided"]["because"] == "this processor is fast in it"
    assert sweep_runs.ledger_lines(out, "decided") == 1
