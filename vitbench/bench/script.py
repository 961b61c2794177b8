"""What one writes without vitbench: timm, a DataLoader and RAdam, trial after trial.

    python -m vitbench.bench.script SWEEP.yaml RESULTS.json [--ray]

It trains the trials of a sweep file's grid, each on all cores; with --ray the same function is
given to plain Ray Tune, a core a trial. Results are a row per trial: its settings, the losses and
accuracies of each epoch. `bench sweep` runs it beside `vitbench sweep`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from vitbench import data, hardware
from vitbench.bench import peers
from vitbench.bench.sides import Items
from vitbench.config import TrialConfig, load_sweep
from vitbench.data.image_set import ImageSet
from vitbench.model.builders import vit_shape
from vitbench.options import Parser
from vitbench.plan import expand

_EVAL_BATCH = 256


def train(trial: TrialConfig, images: ImageSet, report: Callable[[dict[str, float]], None]) -> None:
    """Train one model with torch.optim.RAdam; each epoch is evaluated and reported."""
    settings = trial.train
    torch.manual_seed(settings.seed)
    shape = vit_shape(
        trial.model,
        image_size=images.image_size,
        channels=images.channels,
        outputs=images.outputs,
    )
    model = peers.timm(shape)
    optimizer = torch.optim.RAdam(
        model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    loader = DataLoader(Items(images, "cpu"), settings.batch_size, shuffle=True)
    for epoch in range(1, settings.epochs + 1):
        model.train()
        loss_sum = 0.0
        for x_BCSS, y_B in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x_BCSS), y_B)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(y_B)
        row = {"epoch": float(epoch), "train_loss": loss_sum / len(images.train)}
        for split in ("val", "test"):
            row |= evaluate(model, images, split)
        report(row)


def evaluate(model: nn.Module, images: ImageSet, split: str) -> dict[str, float]:
    """Loss and accuracy on a split."""
    model.eval()
    loss, hits, count = 0.0, 0, len(getattr(images, split))
    with torch.inference_mode():
        for x_BCSS, y_B in DataLoader(Items(images, "cpu", split), _EVAL_BATCH):
            logits_BO = model(x_BCSS)
            loss += nn.functional.cross_entropy(logits_BO, y_B, reduction="sum").item()
            hits += int((logits_BO.argmax(dim=1) == y_B).sum())
    return {f"{split}_loss": loss / count, f"{split}_accuracy": hits / count}


def one_after_another(
    trials: Sequence[TrialConfig], images: ImageSet
) -> list[list[dict[str, Any]]]:
    """All trials in this process, each on all cores; the rows of each."""
    torch.set_num_threads(hardware.cpu_count())
    rows_of_trials: list[list[dict[str, Any]]] = []
    for trial in trials:
        rows: list[dict[str, Any]] = []
        train(trial, images, rows.append)
        rows_of_trials.append(rows)
    return rows_of_trials


def under_ray(trials: Sequence[TrialConfig], images: ImageSet) -> list[list[dict[str, Any]]]:
    """The same function under Ray Tune as its guide has it: a core a trial, images by reference."""
    from ray import tune

    def trainable(config: dict[str, Any], images: ImageSet) -> None:
        torch.set_num_threads(1)
        train(TrialConfig.model_validate_json(config["trial"]), images, tune.report)

    with tempfile.TemporaryDirectory() as folder:
        function = tune.with_resources(tune.with_parameters(trainable, images=images), {"cpu": 1})
        results = tune.Tuner(
            function,
            param_space={"trial": tune.grid_search([t.model_dump_json() for t in trials])},
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        frames: list[Any] = [results[n].metrics_dataframe for n in range(len(results))]
    return [[] if frame is None else frame.to_dict("records") for frame in frames]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 1 where a trial has no results."""
    parser = Parser(prog="python -m vitbench.bench.script")
    parser.add_argument("sweep", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--ray", action="store_true")
    args = parser.parse_args(argv)
    trials = expand(load_sweep(args.sweep))
    asked = trials[0].train
    images = data.load(trials[0].dataset, None).subset(
        asked.train_images, asked.val_images, asked.test_images
    )
    rows = (under_ray if args.ray else one_after_another)(trials, images)
    columns = ("epoch", "train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
    content = [
        {
            "config": trial.model_dump(mode="json"),
            "epochs": [{name: row[name] for name in columns} for row in of_trial],
        }
        for trial, of_trial in zip(trials, rows, strict=True)
    ]
    args.results.write_text(json.dumps(content))
    return 0 if all(len(of_trial) == asked.epochs for of_trial in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
