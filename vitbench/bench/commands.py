"""The contenders of `bench sweep`: whole commands, from the shell to their results on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import yaml

from vitbench.bench.contest import Turns

_TIMEOUT_S = 890  # just below that of the contest, so that the reason is the command's


def sweep_file(trials: int, *, quick: bool, dataset: str) -> dict[str, Any]:
    """A grid of so many trials: the paper's model at up to 8 learning rates, small ones beyond.

    3,072 images and 4 epochs as in sweeps/mnist_lr.yaml at laptop scale; three rates are its three.
    """
    model = {"patch_grid": 4, "depth": 12, "heads": 4, "width": 192}
    if trials > 8:
        model |= {"depth": 4, "width": 64}
    train: dict[str, Any] = {"epochs": 4, "batch_size": 16, "optimizer": "radam"}
    train |= {"train_images": 3072, "val_images": 512, "test_images": 512}
    if quick:
        model |= {"depth": 1, "width": 16}
        train |= {"epochs": 2, "train_images": 64, "val_images": 32, "test_images": 32}
    space: dict[str, list[float]] = {"lr": [0.003, 0.0003, 0.00003][:trials]}
    if trials > 3:
        rates = min(trials, 8)
        space["lr"] = [float(f"{10 ** (-4.5 + 2 * n / (rates - 1)):.3g}") for n in range(rates)]
    if trials > 8:
        decays = -(-trials // 8)
        space["weight_decay"] = [float(f"{0.05 * n:.3g}") for n in range(decays)]
    return {
        "name": "bench",
        "dataset": {"name": dataset},
        "model": model,
        "train": train,
        "search": {"space": space},
        "attention": {"top": 0},
    }


def script(turns: Turns, *, sweep: dict[str, Any], ray: bool) -> None:
    """`vitbench.bench.script` as a command, plain or under Ray Tune."""

    def command(file: Path, out: Path) -> list[str]:
        return ["vitbench.bench.script", str(file), str(out / "results.json")] + ["--ray"] * ray

    def accuracies(out: Path) -> list[float]:
        best_accuracies = []
        for trial in json.loads((out / "results.json").read_text()):
            best = min(trial["epochs"], key=lambda row: row["val_loss"])
            best_accuracies.append(float(best["test_accuracy"]))
        return best_accuracies

    _take(turns, sweep, command, accuracies)


def vitbench(turns: Turns, *, sweep: dict[str, Any], precision: str = "auto") -> None:
    """`vitbench sweep`, to its report; attention plates are off."""
    sweep = {**sweep, "train": {**sweep["train"], "precision": precision}}

    def command(file: Path, out: Path) -> list[str]:
        return ["vitbench.sweep", str(file), "--out", str(out), "--scale", "paper"]

    def accuracies(out: Path) -> list[float]:
        (table,) = out.glob("*/*/trials.parquet")
        return [float(value) for value in pd.read_parquet(table)["best_test_accuracy"]]

    _take(turns, sweep, command, accuracies)


def _take(turns: Turns, sweep: dict[str, Any], command: Any, accuracies: Any) -> None:
    """Run the command in each turn; the note tells the accuracies of the last."""
    turns.ready()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.yaml"
        file.write_text(yaml.safe_dump(sweep, sort_keys=False))

        def work(number: int) -> float:
            out = Path(folder) / str(number)
            out.mkdir()
            # From another place the package must be found as it is here.
            paths = os.pathsep.join(path for path in sys.path if path)
            start_s = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", *command(file, out)],
                env={**os.environ, "PYTHONPATH": paths},
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
            )
            took_s = time.perf_counter() - start_s
            if done.returncode != 0:
                last = (done.stderr or done.stdout).strip().splitlines()[-1:]
                raise RuntimeError(f"the command ended with {done.returncode}: {''.join(last)}")
            turns.facts["note"] = in_words(accuracies(out))
            return took_s

        turns.take(1, work)


def in_words(accuracies: Sequence[float]) -> str:
    """Test accuracies, in per cent: of a few trials each, of many median and highest."""
    shown = [f"{100 * value:.1f}" for value in accuracies]
    if len(shown) <= 8:
        return f"test accuracy {', '.join(shown)} %"
    middle = f"{100 * median(accuracies):.1f}"
    return f"test accuracy {middle} % in the middle, {100 * max(accuracies):.1f} % at best"
