"""Sweeps on a local Ray as contenders of a benchmark: tiny trials three ways, DDP by workers.

Each public function is a contender (see `contest`); one turn is a whole sweep. The local Ray starts
before the first turn and is not counted; worker processes start within the turn, as in a sweep.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from ray import train, tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback
from rich.console import Console

from vitbench import data
from vitbench.bench.contest import Turns
from vitbench.config import Sweep
from vitbench.plan import StackPlan, expand
from vitbench.records import ledger, tables
from vitbench.records.history import History
from vitbench.records.ledger import Ledger
from vitbench.training.engine import EpochReport, fit
from vitbench.tuning import runner
from vitbench.tuning.cluster.connect import connect


def _small_sweep(model: dict[str, int], train: dict[str, Any], **rest: Any) -> Sweep:
    """A sweep of digits that hardly validates or tests."""
    train = {**train, "val_images": 16, "test_images": 16, "precision": "float32"}
    named = {"name": "bench", "dataset": {"name": "digits"}}
    return Sweep.model_validate({**named, "model": model, "train": train, **rest})


def _tiny_sweep(trials: int, workers: int = 1) -> Sweep:
    """A sweep of near-zero work: one epoch of 16 digits for a model of one narrow block."""
    return _small_sweep(
        {"patch_grid": 2, "depth": 1, "heads": 1, "width": 8},
        {"epochs": 1, "batch_size": 16, "train_images": 16},
        search={"space": {"lr": [1e-4 * (1 + n) for n in range(trials)]}},
        stack_size=1,
        resources={"workers": workers},
    )


def _plans(trials: int) -> list[str]:
    return [StackPlan((trial,)).to_json() for trial in expand(_tiny_sweep(trials))]


def train_tiny(plan: str) -> float:
    """What every trial does; returns its validation loss."""
    torch.set_num_threads(1)
    stack = StackPlan.from_json(plan)
    losses = []

    def report(epoch: EpochReport) -> bool:
        losses.append(epoch.rows[0].val_loss or 0.0)
        return True

    images = data.load(stack.shared.dataset, None).subset(16, 16, 16)
    fit(stack, images, device=torch.device("cpu"), report=report)
    return losses[-1]


def no_ray(turns: Turns, *, trials: int, slots: int) -> None:
    """The trials alone, one after another in one process: what the others add to."""
    plans = _plans(trials)

    def work(_: int) -> None:
        for plan in plans:
            train_tiny(plan)

    turns.ready()
    turns.take(trials * slots, work)  # side by side they would take this long on each slot


def vitbench(turns: Turns, *, trials: int, slots: int, workers: int = 1) -> None:
    """This package's runner, its ledger and checkpoints included; slots are the machine's.

    With more than one worker each trial trains with DistributedDataParallel under Ray Train and
    takes as many slots.
    """
    sweep = _tiny_sweep(trials, workers)

    def work(folder: Path) -> None:
        _run(sweep, folder)
        rows = ledger.read(folder / tables.LEDGER)
        ends_s = [row["time_s"] for row in rows if row["kind"] == "outcome"]
        if (later_s := seconds_of_later(ends_s, max(1, slots // workers))) is not None:
            turns.facts["note"] = f"{later_s:.2f} s once its processes run"

    _on_ray(turns, trials * workers, work)


def seconds_of_later(ends_s: Sequence[float], slots: int) -> float | None:
    """How long a trial occupies its slot where its process runs already, from when trials ended.

    The first trial of each slot waits for a process to start and to import torch; None where no
    other was trained.
    """
    first, later = ends_s[:slots], len(ends_s) - slots
    return slots * (max(ends_s) - max(first)) / later if later > 0 else None


def ddp(
    turns: Turns, *, workers: int, images: int, batch_size: int, depth: int, width: int
) -> None:
    """One model on `workers` processes: training images a second, start-up left out.

    `images` digits make an epoch, and two epochs a turn; the workers share the global batch.
    """
    sweep = _small_sweep(
        {"patch_grid": 4, "heads": 4, "depth": depth, "width": width},
        {"epochs": 2, "batch_size": batch_size, "train_images": images},
        resources={"gpus": 0, "workers": workers},
    )

    def work(folder: Path) -> float:
        _run(sweep, folder)
        trials, _ = tables.build(folder)
        return 2 * images / float(trials["images_per_s"].iloc[0])

    _on_ray(turns, 2 * images, work)


def plain_tune(turns: Turns, *, trials: int, slots: int, reuse_actors: bool) -> None:
    """A function and `Tuner.fit`, as Ray's own first example."""

    def trial(config: dict[str, Any]) -> None:
        tune.report({"loss": train_tiny(config["plan"])})

    config = tune.TuneConfig(max_concurrent_trials=slots, reuse_actors=reuse_actors)
    _tune(turns, trials, tune.with_resources(trial, {"cpu": 1}), config)


def train_in_tune(turns: Turns, *, trials: int, slots: int) -> None:
    """A one-worker TorchTrainer inside each Tune trial, as Ray's guide has it."""

    def worker(config: dict[str, Any]) -> None:
        train.report({"loss": train_tiny(config["plan"])})

    def driver(config: dict[str, Any]) -> None:
        TorchTrainer(
            worker,
            train_loop_config=config,
            scaling_config=train.ScalingConfig(num_workers=1),
            run_config=train.RunConfig(
                name=f"train-{tune.get_context().get_trial_id()}",
                storage_path=config["folder"],
                callbacks=[TuneReportCallback()],  # type: ignore[list-item]
            ),
        ).fit()

    # The driver waits and needs no CPU; some resource it must name.
    trainable = tune.with_resources(driver, {"CPU": 0, "memory": 1e6})
    _tune(turns, trials, trainable, tune.TuneConfig(max_concurrent_trials=slots))


def _on_ray(turns: Turns, units: float, work: Callable[[Path], float | None]) -> None:
    """Take every turn with a local Ray and an empty folder; see `Turns.take`."""
    with connect(None, verbose=False), tempfile.TemporaryDirectory() as base:
        turns.ready()
        turns.take(units, lambda _: work(Path(tempfile.mkdtemp(dir=base))))


def _run(sweep: Sweep, folder: Path) -> None:
    """Run a sweep on the connected Ray."""
    trials, path = expand(sweep), folder / tables.LEDGER
    job = runner.Job(sweep, trials, ["lr"], folder, data.load(sweep.dataset, None))
    with Ledger(path) as record:
        runner.run(job, record, History.read(path), Console(quiet=True))
    _check(len(list((folder / "checkpoints").glob("*/best.json"))), len(trials))


def _tune(turns: Turns, trials: int, trainable: Any, tune_config: tune.TuneConfig) -> None:
    """Let Tune run all trials in each turn."""

    def work(folder: Path) -> None:
        results = tune.Tuner(
            trainable,
            param_space={"plan": tune.grid_search(_plans(trials)), "folder": str(folder)},
            tune_config=tune_config,
            run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
        ).fit()
        _check(sum("loss" in (results[n].metrics or {}) for n in range(len(results))), trials)

    _on_ray(turns, trials, work)


def _check(finished: int, trials: int) -> None:
    if finished != trials:
        raise RuntimeError(f"only {finished} of {trials} trials finished")
