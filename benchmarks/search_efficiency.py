"""Does TPE with ASHA find what random search finds, for a fifth of the epochs?

    python benchmarks/search_efficiency.py [--out DIR] [--seeds 0 1 2]

Two sweeps on scikit-learn's digits with the same space: 48 random trials in full, and TPE with
ASHA under a budget of a fifth of their epochs. The space is that of somebody who knows little:
seven decades of learning rate and of weight decay, depth and heads; trained as one does today, with
a cosine schedule and clipped gradients. Prints, for each seed, the best validation loss of each,
the epochs that each trained, and the epochs after which TPE + ASHA was as good. The two searches
have different seeds: with the same one their first suggestions would be the same.

What it does not show: spaces in which the best settings start slowly. A constant learning rate or
a patch grid of 8 makes such spaces, and there ASHA stops what would have won (docs/search.md).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

EPOCHS, RANDOM_TRIALS, SHARE = 27, 48, 5
SPACE = f"""
dataset: {{name: digits, image_size: 16}}
model: {{width: 24, mlp: 48, patch_grid: 4}}
train:
  epochs: {EPOCHS}
  batch_size: 32
  schedule: cosine
  clip_norm: 1.0
  test_images: 50
attention: {{top: 0}}
search:
  space:
    lr: {{low: 0.000001, high: 10.0, log: true}}
    weight_decay: {{low: 0.000001, high: 10.0, log: true}}
    depth: {{low: 1, high: 4}}
    heads: [1, 2, 3, 4, 6]
"""
ASHA = {
    "method": "optuna",
    "sampler": "tpe",
    "scheduler": "asha",
    "grace_epochs": "1",
    "reduction_factor": "4",
    "suggestions": "1000",  # the budget ends it
}


def run(name: str, search: dict[str, str], extra: list[str], out: Path) -> pd.DataFrame:
    """Run one sweep; returns its epochs in the order in which they were recorded."""
    file = out / f"{name}.yaml"
    settings = "".join(f"  {key}: {value}\n" for key, value in search.items())
    file.write_text(f"name: {name}\n{SPACE.strip()}\n{settings}")
    command = [sys.executable, "-m", "vitbench.sweep", str(file), "--out", str(out), *extra]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (ledger,) = (out / name).glob("*/ledger.jsonl")
    lines = pd.read_json(ledger, lines=True)
    return lines[lines["kind"] == "epoch"]


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="keep the sweeps here")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    budget = RANDOM_TRIALS * EPOCHS // SHARE
    print("seed  random best  epochs  TPE+ASHA best  epochs  as good after  reached")
    reached = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in args.seeds:
            out = (args.out or Path(scratch)) / f"seed{seed}"
            out.mkdir(parents=True)
            plain = {"method": "random", "suggestions": str(RANDOM_TRIALS), "seed": str(seed)}
            full = run("random", plain, [], out)
            quick = run(
                "tpe_asha",
                {**ASHA, "seed": str(seed + 1000)},
                ["--set", f"budget.epochs={budget}"],
                out,
            )
            target, best = full["val_loss"].min(), quick["val_loss"].min()
            good = quick["val_loss"].le(target).to_numpy()
            after = int(good.argmax()) + 1 if good.any() else None
            reached.append(after is not None)
            print(
                f"{seed:4d}  {target:11.4f}  {len(full):6d}  {best:13.4f}  {len(quick):6d}  "
                f"{after or 'never'!s:>13}  {'yes' if after else 'no'}",
                flush=True,
            )
    print(f"reached with a fifth of the epochs in {sum(reached)} of {len(reached)} searches")
    return 0


if __name__ == "__main__":
    sys.exit(main())
