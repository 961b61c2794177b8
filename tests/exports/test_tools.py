"""MLflow, W&B and Trackio from the tables: twice is once, and a failure is a line."""

from __future__ import annotations

import importlib.util
import json
import math
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import result_folder
import sweep_runs
from event_files import scalars

from vitbench import sweep
from vitbench.commands import export
from vitbench.errors import UserError
from vitbench.exports import tools
from vitbench.records import tables
from vitbench.records.ledger import Ledger

SWEEP = """
name: exported
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 3, batch_size: 64, train_images: 200, val_images: 50, test_images: 50}
attention: {top: 0}
stack_size: 3
search:
  method: grid
  space: {lr: [0.001, 0.01, 1.0e+6], seed: [0]}
"""
Runs = Iterator[tuple[str, str, list[tuple[int, float]]]]  # trial, end, (epoch, validation loss)


def mlflow_runs(folder: Path, name: str) -> Runs:
    from mlflow import MlflowClient

    client = MlflowClient((folder / "mlflow").resolve().as_uri())
    for run in client.search_runs([client.get_experiment_by_name(name).experiment_id]):
        history = client.get_metric_history(run.info.run_id, "val_loss")
        assert (run.info.status == "FINISHED") == (
            run.data.tags["status"] in ("finished", "diverged")
        )
        losses = [(m.step, m.value) for m in history]
        yield run.data.params["trial"], run.data.tags["status"], losses


def wandb_runs(folder: Path, name: str) -> Runs:
    """Read from W&B's log: blocks of 32 KiB with chunks in them."""
    from wandb.proto import wandb_internal_pb2

    for file in folder.glob("wandb/offline-run-*/*.wandb"):
        content, at, part, losses, config = file.read_bytes(), 7, b"", [], {}
        while at + 7 <= len(content):
            if 2**15 - at % 2**15 < 7:  # what is left of a block is padding
                at += 2**15 - at % 2**15
                continue
            _, length, kind = struct.unpack_from("<IHB", content, at)
            part += content[at + 7 : at + 7 + length]
            at += 7 + length
            if kind not in (1, 4):  # not whole, and not the last part
                continue
            record, part = wandb_internal_pb2.Record.FromString(part), b""
            if record.WhichOneof("record_type") == "run":
                assert record.run.run_group.startswith(f"{name}/")
                config.update({i.key: i.value_json for i in record.run.config.update})
            items = {(i.key or i.nested_key[0]): i.value_json for i in record.history.item}
            if "val_loss" in items:
                losses.append((int(items["_step"]), float(json.loads(items["val_loss"]))))
        yield json.loads(config["trial"]), json.loads(config["status"]), losses


def trackio_runs(folder: Path, name: str) -> Runs:
    with sqlite3.connect(folder / "trackio" / f"{name}.db") as database:
        configs = database.execute("select run_id, config from configs").fetchall()
        logs = database.execute(
            "select run_id, step, metrics from metrics order by step"
        ).fetchall()
    rows = [(run_id, step, json.loads(text)) for run_id, step, text in logs]
    assert {run_id for run_id, _, _ in rows} == {run_id for run_id, _ in configs}
    for run_id, text in configs:
        config = json.loads(text)
        losses = [(s, m["val_loss"]) for i, s, m in rows if i == run_id and "val_loss" in m]
        yield config["trial"], config["status"], losses


READ = {"mlflow": mlflow_runs, "wandb": wandb_runs, "trackio": trackio_runs}


def same_as_the_tables(folder: Path, tool: str, sweep_name: str) -> None:
    """Fail unless the tool has each model that began to train once, with the tables' losses."""
    trials, epochs = pd.read_csv(folder / "trials.csv"), pd.read_csv(folder / "epochs.csv")
    trials = trials[trials["status"] != "planned"]
    runs = list(READ[tool](folder, sweep_name))
    assert sorted(trial for trial, _, _ in runs) == sorted(trials["trial_id"])
    status_of = dict(zip(trials["trial_id"], trials["status"], strict=True))
    for trial, status, losses in runs:
        rows = epochs[(epochs["trial_id"] == trial) & epochs["val_loss"].notna()]
        assert status == status_of[trial]
        assert [epoch for epoch, _ in losses] == list(rows["epoch"])
        assert [loss for _, loss in losses] == pytest.approx(list(rows["val_loss"]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three models that have ended, one of them diverged, and two that are planned."""
    sweep_runs.no_tracking_server(monkeypatch)
    space = "{lr: [0.001, 1.0, 0.01, 0.1, 0.02], seed: [0]}"
    at = result_folder.GRID.index("space: ")
    text = f"{result_folder.GRID[:at]}space: {space}\n"
    made = result_folder.make(tmp_path / "run-1", text, until=3)
    return made


def go_on(folder: Path) -> None:
    """Of the models that were planned alone, one crashes at once, one pauses after an epoch."""
    crashed, paused = pd.read_csv(folder / "trials.csv")["trial_id"].iloc[-2:]
    with Ledger(folder / tables.LEDGER) as ledger:
        ledger.append("outcome", trial_id=crashed, status="crashed", error="RuntimeError: no")
        ledger.append("epoch", trial_id=paused, epoch=1, epoch_s=0.5, val_loss=1.5)
        ledger.append("outcome", trial_id=paused, status="interrupted", epochs=1)
    tables.write(folder)


@pytest.mark.parametrize("tool", READ)
def test_a_tool_has_each_model_once_however_often_it_is_exported(folder: Path, tool: str) -> None:
    """The second time replaces, and brings what has come since."""
    if importlib.util.find_spec(tools.PACKAGES[tool]) is None:
        pytest.skip(f"{tools.PACKAGES[tool]} is not installed")
    command = [sys.executable, "-m", "vitbench", "export", str(folder), "--to", tool]
    first = subprocess.run(command, capture_output=True, text=True)
    assert (first.returncode, first.stderr) == (0, "")
    assert f"exported to {tool}: 3 runs: " in first.stdout and "\n" not in first.stdout.strip()
    same_as_the_tables(folder, tool, "made")
    go_on(folder)
    second = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "5 runs, 3 of them written before and replaced" in second
    same_as_the_tables(folder, tool, "made")


def test_a_tool_that_fails_is_one_line_and_the_others_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the end of a sweep nothing is raised; the command ends with 1."""
    folder = result_folder.make(tmp_path / "run-1", until=2)

    def gone(*_: object) -> tuple[str, int]:
        raise ConnectionError("the server\nis gone")

    monkeypatch.setitem(tools.FROM_TABLES, "mlflow", gone)
    monkeypatch.setitem(tools.FROM_TABLES, "wandb", lambda where, runs: (str(len(runs)), 0))
    lines = tools.export_each(["tensorboard", "mlflow", "wandb", "wandb"], folder)
    assert lines == [
        "export to mlflow failed (ConnectionError: the server); the results are complete without; "
        f"to try again: vitbench export {folder} --to mlflow",
        "exported to wandb: 2 runs: 2",
    ]
    monkeypatch.setattr(tools, "require", lambda names: None)
    assert export.main([str(folder), "--to", "mlflow"]) == 1
    assert capsys.readouterr().err == "export to mlflow failed: ConnectionError: the server\n"
    assert export.main([str(tmp_path), "--to", "wandb"]) == 2
    assert "holds no results of a sweep" in capsys.readouterr().err


def test_a_missing_package_is_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the extra to install; a folder that happens to be called wandb is no package."""
    monkeypatch.setitem(tools.PACKAGES, "mlflow", "no_such_package_at_all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "some_folder").mkdir()
    monkeypatch.setitem(tools.PACKAGES, "wandb", "some_folder")
    assert importlib.util.find_spec("some_folder") is not None
    with pytest.raises(UserError, match=r"vitbench\[wandb\]"):
        tools.require(["wandb"])
    tools.require(["tensorboard"])
    file = tmp_path / "s.yaml"
    file.write_text(SWEEP)
    arguments = [str(file), "--out", str(tmp_path / "out"), "--export", "mlflow"]
    assert sweep.main(arguments) == 2
    assert "pip install 'vitbench[mlflow]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert export.main([str(tmp_path), "--to", "mlflow"]) == 2
    assert "pip install 'vitbench[mlflow]'" in capsys.readouterr().err


@pytest.mark.ray
def test_a_sweep_exports_each_model_to_what_is_installed(
    finished: sweep_runs.Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stack of models becomes a run for each, whose numbers are those of epochs.csv."""
    sweep_runs.no_tracking_server(monkeypatch)
    names, folder = sweep_runs.installed_exports(), finished.folder
    assert "tensorboard" in names  # tensorboardX comes with ray[tune]
    assert "failed" not in finished.output
    assert pd.read_csv(folder / "trials.csv")["stack_id"].duplicated().any()
    epochs = pd.read_csv(folder / "epochs.csv")
    boards = {path.name.split("_")[-1]: path for path in (folder / "tensorboard").iterdir()}
    assert set(boards) == set(epochs["trial_id"])
    for trial, rows in epochs.groupby("trial_id"):
        wanted = [(e, v) for e, v in zip(rows["epoch"], rows["val_loss"], strict=True)]
        finite = [(epoch, loss) for epoch, loss in wanted if math.isfinite(loss)]
        assert scalars(boards[str(trial)], "val_loss") == [
            (epoch, pytest.approx(loss, rel=1e-6)) for epoch, loss in finite
        ]
    for name in set(names) & set(READ):
        same_as_the_tables(folder, name, "tiny")
