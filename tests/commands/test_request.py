"""From a command line to what is run: each step by itself, nothing started."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vitbench.commands import request as request_module
from vitbench.commands.request import Request, new_results_dir, settle
from vitbench.config import SweepFile, yaml_file
from vitbench.errors import UserError
from vitbench.records import tables

TEXT = """
name: tiny
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 9}
search: {space: {lr: [0.01, 0.001]}}
scales: {laptop: {train: {epochs: 4}}}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("vitbench.commands.request.local_gpu_count", lambda: 0)
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    return path


def test_a_sweep_file_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever edits it meanwhile does not run half of each version."""
    reads = []
    read = yaml_file.read
    monkeypatch.setattr(yaml_file, "read", lambda path: (reads.append(path), read(path))[1])
    found = settle(Request.parse([str(file), "--seeds", "2", "--export", "tensorboard"]))
    assert reads == [file]
    assert (found.scale, found.sweep.train.epochs) == ("laptop", 4)
    assert found.sweep.search.space["seed"] == [0, 1]
    assert found.sweep.exports == ["tensorboard"]
    assert found.file.sweep(overrides=found.overrides).train.epochs == 9


def test_reading_at_one_scale_leaves_the_file_as_it_is(file: Path) -> None:
    """Scales and overrides are laid over copies."""
    found = SweepFile.read(file)
    assert found.sweep(scale="laptop", overrides=["model.depth=2"]).model.depth == 2
    assert found.sweep().model.depth == 1
    assert found.sweep().train.epochs == 9


def test_a_resumed_run_keeps_its_scale(file: Path, tmp_path: Path) -> None:
    """Whatever the machine that goes on with it would choose."""
    run = tmp_path / "out" / "tiny" / "20260101-000000-aaaa"
    run.mkdir(parents=True)
    (run / tables.LEDGER).write_text('{"kind": "run"}\n')
    (run / "environment.json").write_text(json.dumps({"scale": "paper"}))
    found = settle(Request.parse([str(file), "--out", str(tmp_path / "out"), "--resume"]))
    assert (found.scale, found.resume_from) == ("paper", run)
    assert settle(Request.parse([str(file)])).scale == "laptop"
    joined = settle(Request.parse([str(file), "--address", "auto"]))
    assert (joined.scale, joined.resume_from) == ("paper", None)


def test_results_go_to_one_place(file: Path, tmp_path: Path) -> None:
    """--out and `storage:` are refused together; a bucket leaves --out for what is local."""
    shared = ["--set", f"storage={tmp_path / 'shared'}"]
    found = settle(Request.parse([str(file), *shared]))
    assert (found.out, found.bucket) == (tmp_path / "shared", None)
    with pytest.raises(UserError, match="leave out one of them"):
        settle(Request.parse([str(file), *shared, "--out", "elsewhere"]))
    found = settle(Request.parse([str(file), "--set", "storage=s3://b/c"]))
    assert found.out == Path("results") and found.bucket is not None
    first, second = (new_results_dir(settle(Request.parse([str(file), *shared]))) for _ in "ab")
    assert first.parent == second.parent == tmp_path / "shared" / "tiny" and first != second


@pytest.mark.parametrize(
    ("argv", "typed", "program"),
    [
        ("/x/vitbench/sweep.py", [".venv/bin/python"], ".venv/bin/python -m vitbench.sweep"),
        (".venv/bin/vitbench", ["python", ".venv/bin/vitbench"], ".venv/bin/vitbench sweep"),
        ("/usr/bin/vitbench", ["python", "/usr/bin/vitbench"], "vitbench sweep"),
    ],
)
def test_the_command_to_go_on_names_the_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: str, typed: list[str], program: str
) -> None:
    """The program as it was called; also where the run was itself a resume."""
    monkeypatch.setattr(sys, "argv", [argv])
    monkeypatch.setattr(sys, "orig_argv", typed)
    monkeypatch.setattr(request_module.shutil, "which", lambda name: f"/usr/bin/{name}")
    folder = tmp_path / "run"
    folder.mkdir()
    wanted = f"{program} s.yaml --seeds 3 --resume {folder}"
    for extra in ([], ["--resume"], ["--resume", str(folder)]):
        request = Request.parse(["s.yaml", "--seeds", "3", *extra])
        assert request.to_go_on(folder) == wanted


def test_sizes_halve_down_from_the_largest(file: Path) -> None:
    """`--sizes N` adds an axis to whatever the file says, at the scale that is run."""
    asked = [str(file), "--set", "train.train_images=300", "--sizes"]
    assert settle(Request.parse([*asked, "4"])).sweep.search.space == {
        "lr": [0.01, 0.001],
        "train_images": [38, 75, 150, 300],
    }
    with pytest.raises(UserError, match="fewer than a batch of 16; use at most 5"):
        settle(Request.parse([*asked, "6"]))
    with pytest.raises(UserError, match="name 2 or more"):
        settle(Request.parse([*asked, "1"]))
    with pytest.raises(UserError, match=r"add --set train\.train_images=N"):
        settle(Request.parse([str(file), "--sizes", "4"]))
