"""Copies for other tools: one run per model, whole; and nothing they do can touch a sweep."""

from __future__ import annotations

import importlib.util
import json
import math
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sweep_runs

from vitbench import sweep
from vitbench.config import Dataset, Model, Train
from vitbench.errors import UserError
from vitbench.exports import exporters as exports
from vitbench.exports.exporters import Exports
from vitbench.exports.targets import Member, Place
from vitbench.plan import StackPlan, TrialConfig

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


def plan(*rates: float) -> StackPlan:
    return StackPlan(
        tuple(
            TrialConfig(
                dataset=Dataset(name="digits"), model=Model(mlp=768), train=Train(lr=lr, epochs=3)
            )
            for lr in rates
        )
    )


def row(trial: TrialConfig, epoch: int, loss: float = 1.0) -> dict[str, Any]:
    return {"trial_id": trial.trial_id, "epoch": epoch, "val_loss": loss, "epoch_s": 0.1}


class Listener:
    """An exporter that notes what it is told, or fails at it."""

    def __init__(self, place: Place, fails: bool = False) -> None:
        self.told: list[Any] = []
        self.fails = fails

    def row(self, member: Member, row: Mapping[str, Any]) -> None:
        if self.fails:
            raise RuntimeError("the server\nis gone")
        self.told.append((str(member), row["epoch"], row["before"]))

    def ended(self, member: Member, status: str) -> None:
        self.told.append((str(member), status))

    def close(self) -> None:
        self.told.append("closed")


def place(folder: Path) -> Place:
    return Place(folder / "run-1", "exported", ["lr"])


def test_each_model_is_told_once_from_its_first_epoch_to_its_end(tmp_path: Path) -> None:
    """Epochs that a crash repeats are passed over, those of an earlier run come first."""
    heard = Listener(place(tmp_path))
    stack = plan(0.1, 0.2)
    one, two = stack.members
    before = {two.trial_id: {2: row(two, 2), 1: row(two, 1)}}
    sent = Exports(["it"], place(tmp_path), before, {"it": lambda _: heard})
    sent.rows(stack, [row(one, 1), row(two, 3)])
    sent.rows(stack, [row(one, 1), row(one, 2), row(two, 3)])
    sent.ended(stack, [{"trial_id": one.trial_id, "status": "finished"}])
    sent.ended(stack, [{"trial_id": two.trial_id, "status": "interrupted"}])  # goes on later
    assert sent.close() == [] and sent.failures() == []
    first, second = f"lr=0.1 {one.trial_id}", f"lr=0.2 {two.trial_id}"
    assert [x for x in heard.told if x[0] == first] == [
        (first, 1, False),
        (first, 2, False),
        (first, "finished"),
    ]
    assert [x for x in heard.told if x[0] == second] == [
        (second, 1, True),
        (second, 2, True),
        (second, 3, False),
    ]
    assert heard.told[-1] == "closed"


def test_an_exporter_that_fails_is_told_of_once_and_the_others_go_on(tmp_path: Path) -> None:
    """Neither a call nor the making of an exporter raises into the sweep."""
    good, bad = Listener(place(tmp_path)), Listener(place(tmp_path), fails=True)

    def unmakable(_: Place) -> Listener:
        raise ValueError("no key")

    targets = {"bad": lambda _: bad, "good": lambda _: good, "unmakable": unmakable}
    sent = Exports(list(targets), place(tmp_path), targets=targets)
    stack = plan(0.1)
    for epoch in (1, 2, 3):
        sent.rows(stack, [row(stack.members[0], epoch)])
    assert sent.close() == []
    assert sorted(sent.failures()) == [
        ("bad", "RuntimeError: is gone"),
        ("unmakable", "ValueError: no key"),
    ]
    assert sent.failures() == []
    assert [x[1] for x in good.told[:-1]] == [1, 2, 3]


def test_an_exporter_that_hangs_is_given_up(tmp_path: Path) -> None:
    """A server that never answers must not keep a finished sweep from its report."""
    forever = threading.Event()

    class Hanging(Listener):
        def row(self, member: Member, row: Mapping[str, Any]) -> None:
            forever.wait()

    sent = Exports(["slow"], place(tmp_path), targets={"slow": Hanging})
    stack = plan(0.1)
    sent.rows(stack, [row(stack.members[0], 1)])
    assert sent.close(patience_s=0.05) == ["slow"]
    forever.set()


def test_a_missing_package_is_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the extra to install; a folder that happens to be called wandb is no package."""
    monkeypatch.setitem(exports.PACKAGES, "mlflow", "no_such_package_at_all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "some_folder").mkdir()
    monkeypatch.setitem(exports.PACKAGES, "wandb", "some_folder")
    assert importlib.util.find_spec("some_folder") is not None
    with pytest.raises(UserError, match=r"vitbench\[wandb\]"):
        exports.require(["wandb"])
    exports.require(["tensorboard"])
    file = tmp_path / "s.yaml"
    file.write_text(SWEEP)
    arguments = [str(file), "--out", str(tmp_path / "out"), "--export", "mlflow"]
    assert sweep.main(arguments) == 2
    assert "pip install 'vitbench[mlflow]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def tensorboard_scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) of a tag, read from the record format: length, crc, bytes, crc."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length
            found += [(event.step, v.simple_value) for v in event.summary.value if v.tag == tag]
    return found


def mlflow_runs(folder: Path) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """(trial, losses) of every run."""
    from mlflow import MlflowClient

    client = MlflowClient((folder / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name("exported")
    for run in client.search_runs([experiment.experiment_id]):
        history = client.get_metric_history(run.info.run_id, "val_loss")
        yield run.data.params["trial"], [(m.step, m.value) for m in history]


def wandb_runs(folder: Path) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """(trial, losses) of every run, read from its log: blocks of 32 KiB with chunks in them."""
    from wandb.proto import wandb_internal_pb2

    for file in folder.glob("wandb/offline-run-*/*.wandb"):
        content, at, part, losses, trial = file.read_bytes(), 7, b"", [], ""
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
                trial = record.run.run_id.split("-")[-1]
            items = {(i.key or i.nested_key[0]): i.value_json for i in record.history.item}
            if "val_loss" in items:
                losses.append((int(items["_step"]), float(json.loads(items["val_loss"]))))
        yield trial, losses


@pytest.mark.slow
def test_a_sweep_exports_each_model_to_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stack of three becomes three runs whose numbers are those of epochs.parquet."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    file = tmp_path / "s.yaml"
    file.write_text(SWEEP)
    names = [n for n, package in exports.PACKAGES.items() if importlib.util.find_spec(package)]
    assert "tensorboard" in names  # tensorboardX comes with ray[tune]
    flags = [word for name in names for word in ("--export", name)]
    code, output = sweep_runs.sweep(str(file), "--out", str(tmp_path / "out"), *flags)
    assert code == 0 and "export to" not in output, output
    folder = sweep_runs.results_of(tmp_path / "out")
    epochs = pd.read_parquet(folder / "epochs.parquet")
    wanted = {
        trial: [
            (epoch, loss)
            for epoch, loss in zip(part["epoch"], part["val_loss"], strict=True)
            if math.isfinite(loss)
        ]
        for trial, part in epochs.groupby("trial_id")
    }
    assert sorted(map(len, wanted.values())) == [0, 3, 3]
    found: dict[str, dict[str, list[tuple[int, float]]]] = {
        "tensorboard": {
            path.name.split("_")[-1]: tensorboard_scalars(path, "ray/tune/val_loss")
            for path in (folder / "tensorboard").iterdir()
        }
    }
    if "mlflow" in names:
        found["mlflow"] = dict(mlflow_runs(folder))
    if "wandb" in names:
        found["wandb"] = dict(wandb_runs(folder))
    for name, runs in found.items():
        assert set(runs) == set(wanted), name
        for trial, losses in runs.items():
            assert [epoch for epoch, _ in losses] == [epoch for epoch, _ in wanted[trial]], name
            assert [loss for _, loss in losses] == pytest.approx(
                [loss for _, loss in wanted[trial]], rel=1e-6
            ), name
