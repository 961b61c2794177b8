"""Whole sweeps as commands: the same trials on every side, results that are read back."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import yaml

from vitbench import data, hardware
from vitbench.bench import commands, comparisons, script
from vitbench.bench.__main__ import main
from vitbench.config import Sweep, load_sweep
from vitbench.plan import expand

# Not by importing it: beside a torch without CUDA torchvision, which timm imports, needs care.
needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm comes with the 'bench' extra"
)


@pytest.mark.parametrize(("trials", "depth"), [(1, 12), (3, 12), (8, 12), (32, 4)])
def test_a_sweep_has_so_many_trials(trials: int, depth: int) -> None:
    """The paper's model up to eight; all of one architecture, so that only they differ."""
    asked = Sweep.model_validate(commands.sweep_file(trials, quick=False, dataset="mnist"))
    found = expand(asked)
    assert len(found) == trials
    assert {trial.model.depth for trial in found} == {depth}
    if trials == 3:
        laptop = load_sweep(Path(__file__).parents[2] / "sweeps" / "mnist_lr.yaml", scale="laptop")
        assert [t.train.lr for t in found] == [t.train.lr for t in expand(laptop)]
        for name in ("epochs", "batch_size", "train_images", "val_images", "test_images"):
            assert getattr(asked.train, name) == getattr(laptop.train, name)


def test_both_precisions_take_part_where_both_are_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without AMX bfloat16 would take hours."""
    for amx, count in ((True, 5), (False, 3)):
        monkeypatch.setattr(hardware, "has_amx", lambda amx=amx: amx)
        sides = comparisons.sweep_command_sides({})
        assert len(sides) == count
        assert [side.settings.get("precision") for side in sides[3:]] == (
            ["float32", "bfloat16"] if amx else []
        )


def test_accuracies_in_words() -> None:
    """Each of a few, the middle and the best of many."""
    assert commands.in_words([0.5, 0.9812]) == "test accuracy 50.0, 98.1 %"
    many = [0.1 * n for n in range(9)]
    assert commands.in_words(many) == "test accuracy 40.0 % in the middle, 80.0 % at best"


@needs_timm
def test_the_script_trains_and_evaluates_each_epoch(tmp_path: Path) -> None:
    """timm, a DataLoader, RAdam: rows of every epoch, and it learns."""
    asked = commands.sweep_file(1, quick=True, dataset="digits")
    asked["train"] |= {"epochs": 6, "train_images": 256}
    file, results = tmp_path / "s.yaml", tmp_path / "r.json"
    file.write_text(yaml.safe_dump(asked))
    threads = torch.get_num_threads()
    try:
        assert script.main([str(file), str(results)]) == 0
        assert torch.get_num_threads() == hardware.cpu_count()
    finally:
        torch.set_num_threads(threads)
    (trial,) = json.loads(results.read_text())
    assert [row["epoch"] for row in trial["epochs"]] == [1, 2, 3, 4, 5, 6]
    losses = [row["train_loss"] for row in trial["epochs"]]
    assert losses[-1] < losses[0] - 0.04
    assert trial["config"]["train"]["lr"] == 0.003


@needs_timm
@pytest.mark.slow
@pytest.mark.ray
def test_the_same_function_trains_under_ray_tune(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every epoch of every trial comes back, in the order of the trials."""
    # The script is a program of its own: what our sweeps set for Tune is not set there.
    monkeypatch.delenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", raising=False)
    asked = Sweep.model_validate(commands.sweep_file(2, quick=True, dataset="digits"))
    images = data.load(asked.dataset, None).subset(64, 32, 32)
    found = script.under_ray(expand(asked), images)
    assert [[row["epoch"] for row in rows] for rows in found] == [[1, 2], [1, 2]]
    assert found[0][1]["train_loss"] != found[1][1]["train_loss"]


@needs_timm
@pytest.mark.long
@pytest.mark.ray
def test_commands_take_turns_and_are_reported(tmp_path: Path) -> None:
    """A quick contest of the script and the sweep: rates, ratio, seconds and accuracies."""
    argv = ["sweep", "--quick", "--trials", "1", "--rounds", "1", "--out", str(tmp_path)]
    assert main([*argv, "--only", "script", "--only", "vitbench"]) == 0
    record = json.loads((tmp_path / "sweep-1.json").read_text(encoding="utf-8"))
    assert record["reference"] == "script with timm" and record["unit"] == "sweeps/min"
    names = [row["name"] for row in record["rows"]]
    assert names[:2] == ["script with timm", "vitbench sweep"]
    for row in record["rows"]:
        assert row["median"] > 0 and "s; test accuracy" in row["note"]
