"""The precision of a sweep is decided once: by all nodes that train, written down, kept."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray

from vitbench import hardware, sweep
from vitbench.config import Resources, load_sweep
from vitbench.plan import expand
from vitbench.records import tables
from vitbench.records.history import Curve, History
from vitbench.records.ledger import Ledger
from vitbench.records.types import Decided
from vitbench.tuning.cluster import precision
from vitbench.tuning.cluster.capacity import Capacity

TINY = """
name: tiny
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 2, batch_size: 64, train_images: 128, val_images: 50, test_images: 50}
search: {space: {lr: [0.01, 0.001]}}
attention: {top: 0}
"""
BFLOAT16 = Decided(precision="bfloat16", because="this processor is fast in it")
FLOAT32 = Decided(precision="float32", because="no AMX")


def cluster(gpus_each: float = 0.0, growing: bool = False) -> Capacity:
    return Capacity(
        cpus=4, gpus=4 * gpus_each, nodes=2, gpus_each=gpus_each, slots=4, free_slots=4,
        cores=(2, 2), growing=growing,
    )  # fmt: skip


def nodes(monkeypatch: pytest.MonkeyPatch, **slow: str) -> None:
    """Nodes of two CPUs and two GPUs each, by name, with what each answers."""
    found = [
        {"NodeID": name, "Alive": True, "NodeManagerHostname": name, "Resources": resources}
        for name, resources in [
            *((name, {"CPU": 2.0, "GPU": 2.0}) for name in slow),
            ("head", {"CPU": 0.0}),  # trains nothing, so it is not asked
        ]
    ]
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr(
        precision, "_answers", lambda asked, *, on_gpu: {name: slow[name] for name in asked}
    )


@pytest.mark.parametrize("gpus_each", [0.0, 1.0])
def test_one_slow_node_decides_for_all(monkeypatch: pytest.MonkeyPatch, gpus_each: float) -> None:
    """bfloat16 only where each node that trains is fast in it; the slow one is named."""
    nodes(monkeypatch, a="", b="")
    assert precision.decide(Resources(), cluster(gpus_each)).precision == "bfloat16"
    nodes(monkeypatch, a="", b="no AMX")
    found = precision.decide(Resources(), cluster(gpus_each))
    assert found == Decided(precision="float32", because="no AMX on b")


def test_nodes_to_come_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without AMX is many times slower in bfloat16; GPUs are taken to be recent."""
    nodes(monkeypatch, a="")
    assert precision.decide(Resources(), cluster(growing=True)).precision == "float32"
    nodes(monkeypatch)
    found = precision.decide(Resources(), cluster(gpus_each=1.0, growing=True))
    assert found.precision == "bfloat16" and "no GPU is up" in found.because


def test_a_sweep_keeps_what_it_began_with() -> None:
    """Whatever the machine of the resume is good at; one of an earlier version had float32."""
    assert precision.kept(BFLOAT16, History(), on_gpu=False) == BFLOAT16
    begun = History(decided=BFLOAT16)
    assert precision.kept(BFLOAT16, begun, on_gpu=False) == BFLOAT16
    elsewhere = precision.kept(FLOAT32, begun, on_gpu=False)
    assert elsewhere.precision == "bfloat16"
    assert elsewhere.because == "as the sweep began, though now: no AMX"
    old = History(curves={"a": Curve()})
    assert precision.kept(BFLOAT16, old, on_gpu=False).precision == "float32"
    assert precision.kept(BFLOAT16, old, on_gpu=True).precision == "bfloat16"


def test_the_driver_gpus_are_asked_for_their_capability(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The oldest GPU decides; where nobody tells, float32 is the safe answer."""
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "does not tell" in hardware.slow_in_bfloat16(on_gpu=True)
    for lines, expected in (("9.0\\n8.0", ""), ("9.0\\n7.5", "a GPU of compute capability 7.5")):
        tool.write_text(f"#!/bin/sh\nprintf '{lines}\\n'\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        assert hardware.slow_in_bfloat16(on_gpu=True) == expected


@pytest.mark.parametrize(
    ("axis", "open_"), [("[auto, float32]", True), ("[float32, bfloat16]", False), (None, True)]
)
def test_only_auto_is_decided(axis: str | None, open_: bool, tmp_path: Path) -> None:
    """A sweep file that names its precisions is taken at its word."""
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    overrides = [f"search.space.precision={axis}"] if axis else []
    assert precision.leaves_precision_open(load_sweep(file, overrides=overrides)) is open_


def test_every_row_says_what_it_is_computed_in(tmp_path: Path) -> None:
    """Planned, ended and explicit trials; a ledger of an earlier version says nothing of auto."""
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    trials = expand(load_sweep(file, overrides=["search.space.precision=[auto,float32]"]))

    def written(folder: Path, *, decided: bool) -> list[Any]:
        folder.mkdir()
        with Ledger(folder / tables.LEDGER) as ledger:
            if decided:
                ledger.append("decided", **BFLOAT16.to_json())
            for trial in trials:
                config = trial.model_dump(mode="json")
                ledger.append("trial", trial_id=trial.trial_id, stack_id="a", config=config)
            # The worker's own word counts.
            ends = {"status": "finished", "precision_used": "float32"}
            ledger.append("outcome", trial_id=trials[0].trial_id, **ends)
        return list(tables.build(folder)[0]["precision_used"].astype(object))

    assert [t.train.precision for t in trials] == ["auto", "float32", "auto", "float32"]
    assert written(tmp_path / "new", decided=True) == ["float32", "float32", "bfloat16", "float32"]
    old = written(tmp_path / "old", decided=False)
    assert old[0] == old[1] == old[3] == "float32" and old[2] is pd.NA


def test_a_dry_run_says_precision_and_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What this machine would choose, before anything starts."""
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    for amx, expected in ((True, "bfloat16 (this processor is fast"), (False, "float32 (no AMX")):
        monkeypatch.setattr(hardware, "has_amx", lambda amx=amx: amx)
        assert sweep.main([str(file), "--dry-run"]) == 0
        output = capsys.readouterr().out
        assert f"precision: {expected}" in output and "1 thread each" in output
    assert sweep.main([str(file), "--dry-run", "--set", "train.precision=float32"]) == 0
    assert "precision:" not in capsys.readouterr().out
