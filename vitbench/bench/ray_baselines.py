"""Sweeps on a local Ray as contenders of a benchmark: tiny trials three ways, DDP by workers.

Each function is a contender of `vitbench.bench.contest`, in a process of its own; one turn is a
whole sweep of `trials` trials on `slots` CPUs. The local Ray starts before the first turn and is
not counted; worker processes start within the turn, as they do in a sweep.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import train, tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback
from rich.console import Console

from vitbench import data
from vitbench.bench.contest import Turns
from vitbench.config import Resources, Sweep
from vitbench.plan import StackPlan, expand
from vitbench.records import tables
from vitbench.records.history import History
from vitbench.records.ledger import Ledger
from vitbench.tuning import runner
from vitbench.tuning.cluster.connect import connect


def _small_sweep(name: str, model: dict[str, int], train: dict[str, int], **rest: Any) -> Sweep:
    """A sweep of digits that hardly validates or tests."""
    held_out = {"val_images": 16, "test_images": 16}
    dataset = {"name": "digits"}
    sections = {"dataset": dataset, "model": model, "train": {**train, **held_out}}
    return Sweep.model_validate({"name": name, **sections, **rest})


def tiny_sweep(trials: int) -> Sweep:
    """A sweep of near-zero work: one epoch of 16 digits for a model of one narrow block."""
    return _small_sweep(
        "overhead",
        {"patch_grid": 2, "depth": 1, "heads": 1, "width": 8},
        {"epochs": 1, "batch_size": 16, "train_images": 16},
        search={"space": {"lr": [1e-4 * (1 + n) for n in range(trials)]}},
        stack_size=1,
    )


def train_tiny(plan: str) -> float:
    """What every trial does; returns its validation loss."""
    import torch

    from vitbench.training.engine import EpochReport, fit

    torch.set_num_threads(1)
    stack = StackPlan.from_json(plan)
    losses = []

    def report(epoch: EpochReport) -> bool:
        losses.append(float(epoch.rows[0].val_loss))
        return True

    images = data.load(stack.shared.dataset, None).subset(16, 16, 16)
    fit(stack, images, device=torch.device("cpu"), report=report)
    return losses[-1]


def _plans(trials: int) -> list[str]:
    return [StackPlan((trial,)).to_json() for trial in expand(tiny_sweep(trials))]


def no_ray(turns: Turns, *, trials: int, slots: int) -> None:
    """The trials alone, one after another in one process: what the others add to."""
    plans = _plans(trials)
    turns.ready()
    while turns.wait():
        start_s = time.perf_counter()
        for plan in plans:
            train_tiny(plan)
        # Compared per slot: side by side they would take this long on each.
        turns.done(trials, (time.perf_counter() - start_s) / slots)


def vitbench(turns: Turns, *, trials: int, slots: int, workers: int = 1) -> None:
    """This package's runner, its ledger and checkpoints included; slots are the machine's.

    With more than one worker each trial trains with DistributedDataParallel under Ray Train and
    takes as many slots.
    """
    sweep = tiny_sweep(trials)
    sweep = sweep.model_copy(update={"resources": Resources(workers=workers)})
    for _, seconds in _sweeps(turns, sweep, trials):
        turns.done(trials * workers, seconds)


def ddp(turns: Turns, *, workers: int, images: int, **settings: Any) -> None:
    """One model on `workers` processes: training images a second, start-up left out.

    Args:
        turns: the contest's pipe.
        workers: processes that share the global batch; 1 is a plain trial.
        images: digits of one epoch, repeated in two epochs.
        settings: batch_size, depth, width.
    """
    sweep = _small_sweep(
        "scaling",
        {"patch_grid": 4, "heads": 4, "depth": settings["depth"], "width": settings["width"]},
        {"epochs": 2, "batch_size": settings["batch_size"], "train_images": images},
        resources={"gpus": 0, "workers": workers},
    )
    for results_dir, _ in _sweeps(turns, sweep, 1):
        trials, _ = tables.build(results_dir)
        turns.done(2 * images, 2 * images / float(trials["images_per_s"].iloc[0]))


def _sweeps(turns: Turns, sweep: Sweep, trials: int) -> Iterator[tuple[Path, float]]:
    """Run the sweep on a local Ray in each turn: its results folder, the seconds that it took."""
    with connect(None, verbose=False), tempfile.TemporaryDirectory() as folder:
        turns.ready()
        while turns.wait():
            results_dir = Path(tempfile.mkdtemp(dir=folder))
            yield results_dir, _run(sweep, results_dir, trials)


def _run(sweep: Sweep, results_dir: Path, trials: int) -> float:
    """Run a sweep on the connected Ray; returns the seconds that it took."""
    start_s = time.perf_counter()
    images = data.load(sweep.dataset, None)
    job = runner.Job(sweep, expand(sweep), ["lr"], results_dir, images)
    path = results_dir / "ledger.jsonl"
    with Ledger(path) as ledger:
        runner.run(job, ledger, History.read(path), Console(quiet=True))
    seconds = time.perf_counter() - start_s
    _check(len(list((results_dir / "checkpoints").glob("*/best.json"))), trials)
    return seconds


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


def _tune(turns: Turns, trials: int, trainable: Any, tune_config: tune.TuneConfig) -> None:
    """Let Tune run all trials on a local Ray in each turn."""
    with connect(None, verbose=False), tempfile.TemporaryDirectory() as folder:

        def fit(_: int) -> None:
            results = tune.Tuner(
                trainable,
                param_space={"plan": tune.grid_search(_plans(trials)), "folder": folder},
                tune_config=tune_config,
                run_config=tune.RunConfig(storage_path=folder, verbose=0),
            ).fit()
            _check(_finished(results), trials)

        turns.ready()
        turns.take(trials, fit)


def _finished(results: tune.ResultGrid) -> int:
    return sum("loss" in (results[n].metrics or {}) for n in range(len(results)))


def _check(finished: int, trials: int) -> None:
    if finished != trials:
        raise RuntimeError(f"only {finished} of {trials} trials finished")
