"""Results folders made in milliseconds: a real sweep file and ledger, losses from a formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitbench import plan
from vitbench.config import load_sweep, resolved_yaml
from vitbench.plan import TrialConfig
from vitbench.records import environment, tables
from vitbench.records.ledger import Ledger

GRID = """
name: made
description: a grid that was never trained
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 3, batch_size: 64, train_images: 300, val_images: 100, test_images: 50}
search:
  method: grid
  space: {lr: [0.0001, 0.001, 0.01, 0.1, 1.0], seed: [0, 1, 2, 3, 4, 5]}
"""


def bowl(trial: TrialConfig) -> float:
    """Final loss of a trial: a bowl in log lr with its best at 0.01; NaN (diverged) at 1."""
    if trial.train.lr >= 1:
        return math.nan
    seed = 0.01 * math.sin(trial.train.seed + 100 * trial.train.lr)
    return 0.2 + 0.4 * abs(math.log10(trial.train.lr) + 2) + seed


def make(
    folder: Path,
    text: str = GRID,
    loss: Callable[[TrialConfig], float] = bowl,
    trials: list[TrialConfig] | None = None,
    until: int | None = None,
    labels: Callable[[TrialConfig], list[dict[str, Any]]] = lambda trial: [],
) -> Path:
    """Write a results folder.

    Args:
        folder: where; made if missing.
        text: the sweep file.
        loss: final loss of a trial, NaN where it diverged.
        trials: of a search; a grid has its own.
        until: trials that have an end; the others are only planned. All if left out.
        labels: what the engine reports of a trial's labels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "in.yaml"
    file.write_text(text)
    sweep = load_sweep(file)
    file.unlink()
    (folder / "sweep.yaml").write_text(resolved_yaml(sweep))
    environment.write(
        folder,
        argv=["made.yaml"],
        scale="laptop",
        dataset="digits",
        image_source="digits (embedded)",
        data_checksum="0" * 64,
    )
    members = trials if trials is not None else plan.expand(sweep)
    with Ledger(folder / tables.LEDGER) as ledger:
        ledger.append("run", argv=["made.yaml"], scale="laptop")
        for trial in members:
            config = trial.model_dump(mode="json")
            ledger.append("trial", trial_id=trial.trial_id, stack_id=trial.trial_id, config=config)
        for trial in members[:until]:
            _train(ledger, trial, loss(trial), labels(trial))
    tables.write(folder)
    return folder


def _train(ledger: Ledger, trial: TrialConfig, end: float, labels: list[dict[str, Any]]) -> None:
    start, epochs = 2.3, trial.train.epochs
    diverged = not math.isfinite(end)
    for epoch in range(1, epochs + 1):
        value = math.nan if diverged else end + (start - end) * 0.3**epoch
        judged = (
            ("train", "val", "test") if diverged or trial.train.evaluates(epoch) else ("train",)
        )
        losses = {f"{split}_loss": value for split in judged}
        accuracies = {f"{split}_accuracy": 0.5 for split in judged}
        ledger.append(
            "epoch", trial_id=trial.trial_id, epoch=epoch, epoch_s=0.5, **losses, **accuracies
        )
    last = end + (start - end) * 0.3**epochs
    ledger.append(
        "outcome",
        trial_id=trial.trial_id,
        status="diverged" if diverged else "finished",
        epochs=epochs,
        diverged_epoch=1 if diverged else None,
        initial_val_loss=start,
        best_epoch=None if diverged else epochs,
        parameters=1000 * trial.model.depth,
        labels=labels,
        **{f"{s}_loss": last for s in ("train", "val", "test", "best_val", "best_test")},
        **{f"{s}_accuracy": 0.5 for s in ("train", "val", "test", "best_val", "best_test")},
    )
