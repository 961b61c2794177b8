"""Random strikes on sweeps of every kind, against undisturbed runs: `make soak`.

    python tests/soak.py --minutes 20 --seed 1 [--kinds grid random] [--out FOLDER]

The seed draws which sweep is struck by what and after how many epochs. A strike ends the driver, or
is survived; the sweep is resumed until it ends, and its tables are compared with those of the
undisturbed run, number for number. Ends with a table, and with code 1 where anything was lost,
doubled or different.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import sweep_runs

_COMMON = """
dataset: {name: digits, image_size: 8}
train: {epochs: 20, batch_size: 32, train_images: 300, val_images: 60, test_images: 60}
checkpoints: {every_s: 0}
max_failures: 10
stall_minutes: 1.5
attention: {top: 0}
"""
_VIT = "model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}\n"
_SPACE = "{lr: {low: 0.0001, high: 0.1, log: true}, patch_grid: [1, 2, 4], seed: [0, 1]}"
SWEEPS = {
    "grid": f"{_VIT}search: {{space: {{lr: [0.01, 0.001, 0.1], depth: [1, 2], seed: [0, 1]}}}}\n",
    "random": f"{_VIT}search: {{method: random, suggestions: 8, seed: 3, space: {_SPACE}}}\n",
    "tpe": f"{_VIT}search: {{method: optuna, suggestions: 12, seed: 3, concurrency: 1, space: "
    f"{_SPACE}}}\n",
    "ddp": f"{_VIT}resources: {{workers: 2, cpus: 1}}\n"
    "search: {space: {lr: [0.01, 0.001], depth: [1, 2]}}\n",
    "own": "model: {build: 'soak_model:net'}\nsearch: {space: {lr: [0.01, 0.001], seed: [0, 1]}}\n",
}
_OWN = """
from torch import nn


def net(*, channels, image_size, outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, 16), nn.GELU(),
                         nn.Linear(16, outputs))
"""
_DDP_WORKER, _WORKER = "ray::RayTrainWorker", "ray::ImplicitFunc"


class Sweep:
    """One kind of sweep: its undisturbed run, and one that is struck until it ends."""

    def __init__(self, kind: str, base: Path) -> None:
        self.kind, self._base, self._round = kind, base, 0
        self._file = base / f"{kind}.yaml"
        self._file.write_text(f"name: {kind}\n{_COMMON}{SWEEPS[kind]}")
        (base / "soak_model.py").write_text(_OWN)
        self.calm = base / "calm" / kind
        if self.calm.exists():  # of a soak before
            return
        code, output = sweep_runs.sweep(str(self._file), "--out", str(self.calm), timeout_s=900)
        assert code == 0, output

    def begin(self) -> None:
        """Start anew in a folder of its own."""
        self._round += 1
        self.out = self._base / "struck" / f"{self.kind}-{self._round}"

    def run(self) -> sweep_runs.SweepRun:
        """The next run: the first, or one that resumes."""
        resume = ["--resume"] if sweep_runs.ledger_lines(self.out, "run") else []
        return sweep_runs.SweepRun([str(self._file), "--out", str(self.out), *resume])

    def epochs(self) -> int:
        return sweep_runs.ledger_lines(self.out, "epoch")

    def judged(self) -> dict[str, int]:
        """What the struck run has lost, doubled, or has different from the undisturbed one."""
        lost = doubled = different = 0
        frames = zip(
            sweep_runs.tables_of(sweep_runs.results_of(self.calm)),
            sweep_runs.tables_of(sweep_runs.results_of(self.out)),
            strict=True,
        )
        for (expected, found), keys in zip(
            frames, (["trial_id"], ["trial_id", "epoch"]), strict=True
        ):
            doubled += int(found.duplicated(keys).sum())
            both = expected[keys].merge(found[keys].drop_duplicates(), how="left", indicator=True)
            lost += int((both["_merge"] == "left_only").sum())
            try:
                pd.testing.assert_frame_equal(found, expected, check_exact=True)
            except AssertionError as error:
                different += 1
                print(f"{self.kind}: {error}", file=sys.stderr)
        return {"lost": lost, "doubled": doubled, "different": different}


def strike(what: str, run: sweep_runs.SweepRun, sweep: Sweep) -> bool:
    """Strike a running sweep; whether there was something to strike."""
    worker = _DDP_WORKER if sweep.kind == "ddp" else _WORKER
    match what:
        case "driver":
            run.process.kill()
        case "tree":
            for pid in run.family():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        case "worker":
            return bool(run.strike(worker, signal.SIGKILL))
        case "stopped worker":
            return bool(run.strike(worker, signal.SIGSTOP))
        case "channel":  # between Tune and the workers of a stack
            return bool(run.strike("ray::_ChannelActor", signal.SIGKILL))
        case "agent":
            return bool(run.strike("ray::RuntimeEnvAgent", signal.SIGKILL))
        case "raylet":
            return bool(run.strike("raylet", signal.SIGKILL))
        case "gcs":
            return bool(run.strike("gcs_server", signal.SIGKILL))
        case "SIGTERM":
            run.process.terminate()
        case "full disk":  # for what the driver appends to
            (ledger,) = sweep.out.glob("*/*/ledger.jsonl")
            size = ledger.stat().st_size
            resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (size, size))
        case "second resume":
            with sweep.run() as second:
                code, output = second.finish(400)
                refused = code == 2 and "another vitbench is running" in output
                assert refused or (code == 0 and " 0 repeated" in output), output  # it was through
    return True


# What each does, and the exit codes that the run may then end with.
STRIKES: dict[str, set[int]] = {
    "driver": {-signal.SIGKILL},
    "tree": {-signal.SIGKILL},
    "worker": {0},
    "stopped worker": {0},
    "channel": {0},
    "agent": {1},
    "raylet": {1},
    "gcs": {1},
    "SIGTERM": {130},
    "full disk": {1},
    "second resume": {0},
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=list(SWEEPS), choices=list(SWEEPS))
    parser.add_argument("--strikes", nargs="+", default=list(STRIKES), choices=list(STRIKES))
    parser.add_argument("--out", type=Path, default=None, help="a folder to keep everything in")
    args = parser.parse_args()
    base = args.out or Path(tempfile.mkdtemp(prefix="vitbench-soak-"))
    base.mkdir(parents=True, exist_ok=True)
    sweeps = [Sweep(kind, base) for kind in args.kinds]
    print(
        f"{len(sweeps)} undisturbed runs are there; seed {args.seed}, {args.minutes:g} minutes",
        flush=True,
    )
    rng, until_s = random.Random(args.seed), time.monotonic() + 60 * args.minutes
    struck: Counter[tuple[str, str]] = Counter()
    totals: Counter[tuple[str, str]] = Counter()
    unexpected: list[str] = []
    rounds = itertools.cycle(rng.sample(sweeps, len(sweeps)))
    while time.monotonic() < until_s:
        sweep = next(rounds)
        sweep.begin()
        code = None
        while code != 0:
            strikes = [s for s in args.strikes if s != "channel" or sweep.kind == "ddp"]
            what = rng.choice(strikes) if time.monotonic() < until_s else None
            before, wait = sweep.epochs(), rng.randrange(1, 30)
            with sweep.run() as run, contextlib.suppress(TimeoutError, subprocess.TimeoutExpired):
                code, output = None, "no end in 15 minutes"
                trained = lambda s=sweep, n=before + wait: s.epochs() >= n  # noqa: E731
                if what and (
                    run.wait_for(trained, 900)
                    and run.process.poll() is None
                    and strike(what, run, sweep)
                ):
                    struck[sweep.kind, what] += 1
                    print(f"{sweep.kind}: {what} after {wait} epochs", flush=True)
                else:
                    what = None
                code, output = run.finish(900)
            # It may have been through when it was struck.
            if "Traceback" in output or code not in {0, *STRIKES.get(what, ())}:
                unexpected.append(f"{sweep.kind}, {what}: code {code}\n{output[-2000:]}")
                break
        else:
            totals[sweep.kind, "runs"] += 1
            for name, count in sweep.judged().items():
                totals[sweep.kind, name] += count
    names = ["runs", "struck", "lost", "doubled", "different"]
    print("\n| Sweep | " + " | ".join(names) + " | by |\n|---|" + "---|" * (len(names) + 1))
    for kind in args.kinds:
        by = {what: n for (k, what), n in sorted(struck.items()) if k == kind}
        totals[kind, "struck"] = sum(by.values())
        told = ", ".join(f"{what} {n}" for what, n in by.items())
        print(f"| {kind} | " + " | ".join(str(totals[kind, n]) for n in names) + f" | {told} |")
    for text in unexpected:
        print(f"unexpected: {text}")
    bad = sum(totals[kind, name] for kind in args.kinds for name in names[2:])
    return 1 if bad or unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
