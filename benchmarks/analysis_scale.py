"""How long do the results of a large sweep take to load, to sum up and to report?

    python benchmarks/analysis_scale.py [--trials 10000] [--epochs 200] [--report-trials 1000]
        [--out DIR]

Makes results folders with a real sweep file and ledger, losses from a formula, nothing trained;
then measures, each in a process of its own: the tables out of the ledger (what the end of a sweep
does), loading and summing up (tables read, findings and all pairs), and figures with report
for a grid and for a search. Prints seconds by the clock and of the processor, peak memory of the
process with its imports, and sizes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vitbench.analysis import results, summary
from vitbench.analysis.report import report
from vitbench.config import load_sweep, resolved_yaml
from vitbench.plan import trials as plan
from vitbench.records import environment, tables
from vitbench.records.ledger import Ledger

RATES = [round(10 ** (-5 + 4 * n / 19), 8) for n in range(20)]
BASE = """
name: {name}
description: never trained; losses from a formula
dataset: {{name: digits, image_size: 16}}
model: {{width: 24, mlp: 48, heads: 2}}
train: {{epochs: {epochs}, train_images: 1000, val_images: 300, test_images: 300}}
target_accuracy: 0.8
search:
"""
GRID = """
  method: grid
  space:
    lr: {rates}
    depth: [1, 2, 3, 4, 5]
    batch_size: [8, 16, 32, 64, 128]
    seed: {seeds}
"""
SEARCH = """
  method: random
  suggestions: {trials}
  space:
    lr: {{low: 0.00001, high: 0.1, log: true}}
    depth: {{low: 1, high: 12}}
    patch_grid: [1, 2, 4, 8]
    optimizer: [radam, adamw, sgd]
"""


def main() -> int:
    """Make the folders, measure each step in a process of its own, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000, help="a multiple of 500")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--report-trials", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="keep the folders here")
    parser.add_argument("--step", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        return measure(args.step[0], Path(args.step[1]))
    with tempfile.TemporaryDirectory() as scratch:
        out = args.out or Path(scratch)
        large = make(out / "large", "grid", args.trials, args.epochs)
        grid = make(out / "grid", "grid", args.report_trials, args.epochs)
        found = make(out / "search", "random", args.report_trials, args.epochs)
        print(f"{'':44}{'seconds':>9}{'CPU s':>8}{'peak GiB':>10}{'MB':>8}")
        for text, step, folder in (
            (f"tables from the ledger, {args.trials:,} trials", "tables", large),
            (f"load and sum up, {args.trials:,} trials", "load", large),
            (f"tables from the ledger, {args.report_trials:,} trials", "tables", grid),
            (f"figures and report, grid of {args.report_trials:,}", "report", grid),
            (f"tables from the ledger, {args.report_trials:,} trials", "tables", found),
            (f"figures and report, search of {args.report_trials:,}", "report", found),
        ):
            command = [sys.executable, __file__, "--step", step, str(folder)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            wall_s, cpu_s, peak_gib, size_mb = json.loads(done.stdout.splitlines()[-1])
            numbers = f"{wall_s:9.1f}{cpu_s:8.1f}{peak_gib:10.2f}{size_mb:8.1f}"
            print(f"{text:44}{numbers}", flush=True)
    return 0


def make(folder: Path, method: str, trials: int, epochs: int) -> Path:
    """Write a results folder: sweep.yaml, environment.json and a ledger; no tables yet."""
    folder.mkdir(parents=True, exist_ok=True)
    text = BASE.format(name=folder.name, epochs=epochs)
    if method == "grid":
        seeds = list(range(max(1, trials // (len(RATES) * 25))))
        text += GRID.format(rates=RATES, seeds=seeds)
    else:
        text += SEARCH.format(trials=trials)
    (folder / "sweep.yaml").write_text(text)
    sweep = load_sweep(folder / "sweep.yaml")
    (folder / "sweep.yaml").write_text(resolved_yaml(sweep))
    environment.write(
        folder,
        argv=["made.yaml"],
        scale="paper",
        dataset="digits",
        image_source="digits (never trained on)",
        data_checksum="0" * 64,
    )
    rng = np.random.default_rng(0)
    if method == "grid":
        members = plan.expand(sweep)
    else:
        choices = itertools.product((1, 2, 4, 8), ("radam", "adamw", "sgd"))
        kinds = list(itertools.islice(itertools.cycle(choices), trials))
        members = [
            plan.trial_of(
                sweep,
                {
                    "lr": float(10 ** rng.uniform(-5, -1)),
                    "depth": int(rng.integers(1, 13)),
                    "patch_grid": grid,
                    "optimizer": optimizer,
                },
            )
            for grid, optimizer in kinds
        ]
    (folder / tables.LEDGER).unlink(missing_ok=True)
    with Ledger(folder / tables.LEDGER) as ledger:
        ledger.append("run", argv=["made.yaml"], scale="paper")
        ledger.extend(
            "trial",
            (
                {
                    "trial_id": t.trial_id,
                    "stack_id": t.trial_id,
                    "config": t.model_dump(mode="json"),
                }
                for t in members
            ),
        )
        for trial in members:
            end = 0.1 + 0.3 * abs(math.log10(trial.train.lr) + 3) + 0.02 / trial.model.depth
            end += float(rng.normal(0, 0.02))
            loss = end + (2.3 - end) * np.exp(-np.arange(1, epochs + 1) / (0.1 * epochs))
            ledger.extend(
                "epoch",
                (
                    {
                        "trial_id": trial.trial_id,
                        "epoch": epoch,
                        "epoch_s": 0.25,
                        **{f"{s}_loss": value for s in ("train", "val", "test")},
                        **{f"{s}_accuracy": 1 - value / 2.6 for s in ("train", "val", "test")},
                    }
                    for epoch, value in enumerate(loss.tolist(), 1)
                ),
            )
            last = float(loss[-1])
            row = {f"{s}_loss": last for s in ("train", "val", "test", "best_val", "best_test")}
            row |= {f"{s}_accuracy": 0.9 for s in ("train", "val", "test", "best_val")}
            ledger.append(
                "outcome",
                trial_id=trial.trial_id,
                status="finished",
                epochs=epochs,
                best_epoch=epochs,
                initial_val_loss=2.3,
                parameters=1000 * trial.model.depth,
                stack_size=1,
                images_per_s=4000.0,
                wall_s=0.25 * epochs,
                **row,
            )
    return folder


def measure(step: str, folder: Path) -> int:
    """One step; prints wall and CPU seconds, peak GiB and MB as JSON."""

    def load() -> None:
        found = results.load(folder)
        assert summary.as_json(found)["findings"]

    steps: dict[str, tuple[Callable[[], object], Path]] = {
        "tables": (lambda: tables.write(folder), folder / tables.LEDGER),
        "load": (load, folder / "epochs.parquet"),
        "report": (lambda: report.draw_and_write(folder), folder / report.NAME),
    }
    call, path = steps[step]
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    call()
    wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    files = path.iterdir() if path.is_dir() else [path]
    size_mb = sum(file.stat().st_size for file in files) / 1e6
    print(json.dumps([wall_s, cpu_s, peak_gib, size_mb]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
