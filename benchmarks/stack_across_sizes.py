"""Would it pay to stack models that train on different numbers of images?

    python benchmarks/stack_across_sizes.py [--rounds 7]

With equal updates (`train.steps`) models of all numbers of images could train as one stack;
vitbench stacks those of one number alone. A data-size sweep at laptop scale has 18 models of each
(three learning rates, six seeds) and six numbers: at most 108 in place of 18 a stack.
Measured are real training steps on one thread, each member on images of its own, in CPU time of the
process, so that what else runs on the machine counts little; sizes take turns, and a ratio is taken
within each round.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from vitbench import data
from vitbench.config import Dataset, Model, Train, TrialConfig
from vitbench.data import subsets
from vitbench.plan import StackPlan
from vitbench.training.stack import Stack

SIZES, REFERENCE, STEPS = (1, 6, 18, 36, 108), 18, 4
BASELINES = "vitbench.model.baselines"
MODELS = {
    "vit": Model(depth=2, width=32, mlp=64),
    "cnn": Model(build=f"{BASELINES}:cnn", args={"width": 8}),
    "linear": Model(build=f"{BASELINES}:linear"),
}


def main() -> None:
    """Print CPU milliseconds of a member's update by stack size, beside those of stacks of 18."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    images = data.load(Dataset(name="digits"), None)
    print(f"torch {torch.__version__}, one thread, batch 16, {rounds} rounds of {STEPS} updates")
    for name, model in MODELS.items():
        train = Train(train_images=512, batch_size=16)
        used = subsets.cut(images, train)
        stacks = {}
        for size in SIZES:
            members = tuple(
                TrialConfig(
                    dataset=Dataset(name="digits"),
                    model=model,
                    train=train.model_copy(update={"seed": seed}),
                )
                for seed in range(size)
            )
            stacks[size] = Stack(StackPlan(members), used, torch.device("cpu"))
            stacks[size].train_epoch(1, max_steps=2)
        cost_ms: dict[int, list[float]] = {size: [] for size in SIZES}
        for epoch in range(2, rounds + 2):
            for size, stack in stacks.items():
                before_s = time.process_time()
                stack.train_epoch(epoch, max_steps=STEPS)
                cost_ms[size].append(1000 * (time.process_time() - before_s) / STEPS / size)
        for size, costs in cost_ms.items():
            ratio = sorted(a / b for a, b in zip(costs, cost_ms[REFERENCE], strict=True))
            print(
                f"{name:6} K = {size:3}: {statistics.median(costs):6.2f} ms a member, "
                f"x{statistics.median(ratio):.2f} [{ratio[0]:.2f}, {ratio[-1]:.2f}] of K = 18"
            )


if __name__ == "__main__":
    main()
