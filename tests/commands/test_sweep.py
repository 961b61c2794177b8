"""The main job as a user runs it: files, tables, exit codes, interruptions."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pytest
import result_folder
import sweep_runs
from rich.console import Console

from vitbench import sweep
from vitbench.analysis import figures, results
from vitbench.commands.request import Request
from vitbench.config import load_sweep
from vitbench.data.sets import mnist
from vitbench.errors import UserError
from vitbench.hardware import cpu_count
from vitbench.plan.resume import check_same
from vitbench.records import tables
from vitbench.records.ledger import Ledger

TINY = """
name: tiny
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 4, batch_size: 64, train_images: 300, val_images: 100, test_images: 50}
search: {method: grid, space: {lr: [0.01, 0.001, 10.0, 1000.0]}}
checkpoints: {every_s: 0}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def two_in_turn(epochs: int) -> list[str]:
    """What makes the tiny sweep one of two longer trials; two cores hold one at a time."""
    changes = [f"train.epochs={epochs}", "search.space.lr=[0.01,0.001]", "resources.cpus=1.5"]
    return [f"--set={change}" for change in changes]


@pytest.mark.ray
def test_a_sweep_ends_with_tables_figures_and_states(finished: sweep_runs.Finished) -> None:
    """A diverging learning rate beside good ones: right states, a finite best."""
    folder, output = finished.folder, finished.output
    trials = pd.read_parquet(folder / "trials.parquet").set_index("lr")
    assert dict(trials["status"]) == {0.01: "finished", 0.001: "finished", 1e6: "diverged"}
    assert trials.loc[1e6, "diverged_epoch"] >= 1
    best = trials.loc[trials["best_val_loss"].idxmin()]
    assert math.isfinite(best["best_val_loss"]) and best["status"] == "finished"
    assert (folder / best["checkpoint"]).is_file()
    for name in ("learning_curves", "loss_by_lr"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 5000
        assert (folder / "figures" / f"{name}.pdf").is_file()
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["dataset"] == "digits" and environment["packages"]["ray"]
    # Of the images that were used, not of what the file asks: accuracies rest on these.
    assert environment["images"] == {"train": 300, "val": 100, "test": 50}
    assert f"report: {(folder / 'report.html').as_uri()}" in output and "Traceback" not in output
    assert "lr 0.01" in (folder / "report.html").read_text()
    assert not (folder / "ray").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--set=model.heads=3", "does not divide width=8"),
        ("--set=train.train_images=9999", "has 1197 images in this split"),
        ("--seeds=0", "name 1 or more"),
        ("--set=train.epoch=3", "did you mean 'epochs'?"),
        ("--scale=huge", "there is no scale 'huge'"),
        ("--resume", "there is no run of 'tiny'"),
    ],
)
def test_bad_input_is_one_message_and_starts_nothing(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    """Exit code 2, the place and the rule, no trial, and no more than the name of the sweep.

    That is printed before images are looked at, which may take a while.
    """
    out = tmp_path / "out"
    assert sweep.main([str(tiny), "--out", str(out), change]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.out == ("tiny\n" if "images" in change else "")
    assert not out.exists()


@pytest.mark.ray
def test_more_than_the_cluster_has_is_refused(tiny: Path, tmp_path: Path) -> None:
    """What Ray alone knows; the folder of the run that was refused goes again."""
    out = tmp_path / "out"
    twice = f"--set=resources.cpus={cpu_count()}", "--set=resources.workers=2"
    code, output = sweep_runs.sweep_here(str(tiny), "--out", str(out), *twice)
    assert code == 2 and "it can never start" in output
    assert not list(out.glob("*/*"))


SEARCHED = """
name: searched
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 1, batch_size: 64, train_images: 300}
search: {method: random, suggestions: 2, space: {depth: [1, 2]}, inner: {lr: [0.001, 0.01]}}
"""


def test_dry_run_shows_the_plan_and_writes_nothing(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials, stacks, parameters, image source and a forecast, without a cluster."""
    out = tmp_path / "out"
    assert sweep.main([str(tiny), "--dry-run", "--seeds", "2", "--out", str(out)]) == 0
    output = capsys.readouterr().out
    assert "8 trials" in output
    assert "1000" in output and "300 train" in output and "time:" in output
    assert sweep.main([str(tiny), "--dry-run", "--seeds", "2", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["models"] == len(told["trials"]) == 8 and told["images"]["train"] == 300
    assert {trial["stack"] for trial in told["trials"]} == set(range(1, told["stacks"] + 1))
    assert told["wall_s"] > 0 and told["seeds"] == 2
    searched = tmp_path / "searched.yaml"
    searched.write_text(SEARCHED)
    assert sweep.main([str(searched), "--dry-run", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["stacks"] == 2 and told["models"] == 4 and told["trials"] == []
    assert not out.exists()


@pytest.mark.long
@pytest.mark.ray
def test_an_interrupted_and_crashed_sweep_goes_on_to_the_same_numbers(
    tiny: Path, tmp_path: Path
) -> None:
    """Ctrl-C: code 130 and the command to go on. A crash: code 1, the trial and its cause.

    The next resume retries what crashed and nothing else, and ends with the undisturbed tables.
    """
    longer = [*two_in_turn(epochs=30), "--set=max_failures=0"]
    calm, broken = tmp_path / "calm", tmp_path / "broken"
    code, output = sweep_runs.sweep_here(str(tiny), "--out", str(calm), *longer)
    assert code == 0, output
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored
    begun = lambda: sweep_runs.ledger_lines(broken, "epoch") >= 3  # noqa: E731
    try:
        with sweep_runs.beside(begun, lambda: os.kill(os.getpid(), signal.SIGINT)):
            code, output = sweep_runs.sweep_here(str(tiny), "--out", str(broken), *longer)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert code == 130, output
    last = output.strip().splitlines()[-1]
    assert last.startswith(f"to go on: {shlex.quote(sys.orig_argv[0])} -m vitbench.sweep ")
    folder = sweep_runs.results_of(broken)
    trials = pd.read_parquet(folder / "trials.parquet")
    interrupted = trials[trials["status"] == "interrupted"]
    assert len(interrupted) >= 1 and interrupted["epochs"].between(1, 29).all()
    assert set(trials["status"]) <= {"interrupted", "planned", "finished"}

    go_on = shlex.split(last.removeprefix("to go on: "))[3:]
    before = sweep_runs.ledger_lines(broken, "epoch")
    killed: list[int] = []

    def kill_workers() -> None:
        killed.extend(sweep_runs.actor_processes("ImplicitFunc"))
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

    trains = lambda: sweep_runs.ledger_lines(broken, "epoch") >= before + 2  # noqa: E731
    with sweep_runs.beside(trains, kill_workers):
        code, output = sweep_runs.sweep_here(*go_on)
    assert killed and code == 1, output
    assert "0 repeated" in output
    trials = pd.read_parquet(folder / "trials.parquet")
    crashed = trials[trials["status"] == "crashed"]
    assert len(crashed) >= 1 and "died" in crashed["error"].iloc[0]
    assert f"{crashed['trial_id'].iloc[0]}: crashed" in output

    code, output = sweep_runs.sweep_here(*go_on)
    assert code == 0, output
    assert f"{len(crashed)} retried" in output
    assert pd.read_parquet(folder / "trials.parquet")["error"].isna().all()
    calm_folder = sweep_runs.results_of(calm)
    for expected, found in zip(
        sweep_runs.tables_of(calm_folder), sweep_runs.tables_of(folder), strict=True
    ):
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_a_changed_sweep_is_refused_with_a_diff(tiny: Path, tmp_path: Path) -> None:
    """Results of two different questions do not belong in one folder."""
    before = load_sweep(tiny)
    extended = load_sweep(tiny, overrides=["search.space.lr=[0.01,0.001,10.0,1000.0,0.1]"])
    check_same(before, extended, tmp_path)
    with pytest.raises(UserError, match=r"\+  epochs: 5"):
        check_same(before, load_sweep(tiny, overrides=["train.epochs=5"]), tmp_path)


@pytest.mark.parametrize("epochs", [0, 3])
def test_an_interrupt_in_training_keeps_what_there_is(
    epochs: int,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before the first epoch no folder stays; after it the command to go on is said."""
    from vitbench.tuning import runner
    from vitbench.tuning.cluster import connect

    def train(job: runner.Job, ledger: Ledger, *_: object) -> NoReturn:
        rows = [{"trial_id": job.trials[0].trial_id, "epoch": e + 1} for e in range(epochs)]
        ledger.extend("epoch", rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", train)
    monkeypatch.setattr(connect, "connect", lambda *_, **__: contextlib.nullcontext())
    out = tmp_path / "out"
    assert sweep.main([str(tiny), "--out", str(out)]) == 130
    message = capsys.readouterr().err
    assert ("before anything was started" in message) == (not epochs)
    assert [path.is_dir() for path in (out / "tiny").iterdir()] == [True] * bool(epochs)
    if epochs:
        assert f"--resume {sweep_runs.results_of(out)}" in message


@pytest.mark.parametrize("trained", [False, True])
def test_a_refused_run_is_removed_only_if_it_holds_no_epoch(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: bool
) -> None:
    """What was trained before the user's mistake came out is never deleted."""
    from vitbench.tuning import runner
    from vitbench.tuning.cluster import connect

    def run(job: Any, ledger: Ledger, *_: object) -> NoReturn:
        if trained:
            ledger.append("epoch", trial_id="a", epoch=1, epoch_s=1.0)
        raise UserError("a node cannot use the storage")

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(connect, "connect", lambda *_, **__: contextlib.nullcontext())
    assert sweep.main([str(tiny), "--out", str(tmp_path / "out")]) == 2
    assert len(list((tmp_path / "out").glob("*/*/ledger.jsonl"))) == trained


def interrupt(*_: object, **__: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is over at once, without a Ray."""
    from vitbench.tuning import runner
    from vitbench.tuning.cluster import connect

    monkeypatch.setattr(runner, "run", lambda *_: runner.Ending())
    monkeypatch.setattr(connect, "connect", lambda *_, **__: contextlib.nullcontext())


def test_an_interrupt_after_training_says_that_it_is_complete(
    trained: None,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C while the report is written loses no training, and the user learns how to go on."""
    from vitbench.analysis.report import report

    monkeypatch.setattr(report, "draw_and_write_opened", interrupt)
    out = tmp_path / "out"
    assert sweep.main([str(tiny), "--out", str(out), "--set", "attention.top=0"]) == 130
    folder = sweep_runs.results_of(out)
    message = capsys.readouterr().err
    assert "training is complete" in message and "before anything" not in message
    assert f"vitbench analysis {folder}" in message and (folder / "trials.parquet").is_file()


def test_sigterm_ends_like_ctrl_c(
    trained: None,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Before training, while Ray starts and after training: one message, code 130, one folder."""
    from vitbench.analysis.report import report
    from vitbench.tuning.cluster import connect

    def terminate(*_: object, **__: object) -> contextlib.nullcontext[None]:
        os.kill(os.getpid(), signal.SIGTERM)
        return contextlib.nullcontext()

    before = signal.getsignal(signal.SIGTERM)
    out = tmp_path / "out"
    arguments = [str(tiny), "--out", str(out), "--set", "attention.top=0"]
    for place, name in ((sweep, "prepare"), (connect, "connect")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, terminate)
            assert sweep.main(arguments) == 130
        assert capfd.readouterr().err == "interrupted before anything was started\n"
        assert not list(out.glob("*/*"))
    monkeypatch.setattr(report, "draw_and_write_opened", terminate)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as ended:
        sweep.main(arguments)
    assert ended.value.code == 130
    assert "training is complete" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_json_is_alone_on_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program reads where the results are, how trials ended and what follows; people see more."""
    made = result_folder.make(tmp_path / "made")

    def run(request: Request, console: Console) -> tuple[int, Path]:
        console.print("for people")
        return 1, made

    monkeypatch.setattr(sweep, "run", run)
    assert sweep.main(["made.yaml", "--json"]) == 1
    printed, shown = capsys.readouterr()
    told = json.loads(printed)
    assert told["trials"] == {"finished": 24, "diverged": 6}
    assert (told["exit_code"], told["results"]) == (1, str(made))
    assert {"report", "dataset", "arms", "findings", "claims", "limits"} <= told.keys()
    assert shown == "for people\n"


def test_an_interrupt_while_attention_is_mapped_still_gives_the_report(
    trained: None,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The maps are left out, and the last line is the command that adds them."""
    from vitbench.attention import export

    def export_best(*_: object, watch: Callable[[str, int, int], None], **__: object) -> NoReturn:
        os.kill(os.getpid(), signal.SIGINT)  # raises nothing here, where a finalizer could drop it
        watch("attention maps", 1, 2)
        raise AssertionError("the second model is mapped")

    monkeypatch.setattr(export, "export_best", export_best)
    out = tmp_path / "out"
    assert sweep.main([str(tiny), "--out", str(out), "--set", "attention.top=2"]) == 130
    folder = sweep_runs.results_of(out)
    assert (folder / "report.html").is_file()
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert "training is complete" in last
    assert last.endswith(f"vitbench attention {folder} --top 2 && vitbench analysis {folder}")


def test_a_refused_resume_leaves_the_folder(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not this run's to remove, however empty its ledger is."""
    from vitbench.tuning import runner
    from vitbench.tuning.cluster import connect

    def refuse(*_: object) -> NoReturn:
        raise UserError("no")

    out = tmp_path / "out"
    folder = result_folder.make(out / "tiny" / "20260101-000000-aaaa", TINY, until=0)
    monkeypatch.setattr(runner, "run", refuse)
    monkeypatch.setattr(connect, "connect", lambda *_, **__: contextlib.nullcontext())
    arguments = [str(tiny), "--out", str(out), "--scale", "paper", "--resume"]
    assert sweep.main(arguments) == 2
    assert (folder / tables.LEDGER).is_file()


def test_a_dry_run_downloads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where MNIST is not at hand, its numbers are known: 50,000, 10,000 and 10,000 images."""

    def download(*_: object) -> NoReturn:
        raise AssertionError("downloads in a dry run")

    monkeypatch.setattr(mnist, "download", download)
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY.replace("name: digits", "name: mnist").replace("train_images: 300, ", ""))
    empty = tmp_path / "empty"
    assert sweep.main([str(file), "--dry-run", "--data", str(empty)]) == 0
    output = capsys.readouterr().out
    assert "a run would download it first" in output
    assert "50,000 train" in output and "time:" in output
    assert not empty.exists()
    with pytest.raises(AssertionError, match="downloads"):
        sweep.main([str(file), "--data", str(empty), "--out", str(tmp_path / "out")])


@pytest.mark.long
@pytest.mark.ray
def test_sizes_are_trained_on_nested_images_of_each_seed(tiny: Path, local_ray: None) -> None:
    """`--sizes` from the command line to the tables: equal updates, own images, a curve."""
    out = tiny.parent / "out"
    changes = ["train.steps=9", "search.space.lr=[0.01]", "train.batch_size=32"]
    changes += ["stack_size=2", "resources.cpus=1.5"]  # one process trains all of them
    flags = [f"--set={change}" for change in changes]
    code, output = sweep_runs.sweep_here(
        str(tiny), "--out", str(out), "--sizes", "3", "--seeds", "2", *flags
    )
    assert code == 0, output
    folder = sweep_runs.results_of(out)
    trials = pd.read_parquet(folder / "trials.parquet")
    assert sorted(trials["train_images"]) == [75, 75, 150, 150, 300, 300]
    assert set(trials["subset"]) == {"per_seed"} and set(trials["steps"]) == {9}
    # 9 updates of 32 images: three passes over 75, two over 150, one over 300.
    assert trials.groupby("train_images")["epochs"].max().to_dict() == {75: 3, 150: 2, 300: 1}
    assert figures.find(results.load(folder), "data_size_curves")
    assert "equal updates (9)" in (folder / "report.html").read_text(encoding="utf-8")
    code, output = sweep_runs.sweep_here(
        str(tiny), "--out", str(out), "--sizes", "4", "--seeds", "2", *flags, "--resume"
    )
    assert code == 0 and "6 done" in output and "2 new" in output, output
