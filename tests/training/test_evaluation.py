"""Measures beside the losses, against plain torch, scikit-learn and hand-made cases."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from sklearn.metrics import brier_score_loss

from vitbench.config import Evaluation
from vitbench.plan import StackPlan
from vitbench.storage.checkpoints import Checkpoints
from vitbench.storage.place import Place
from vitbench.training.checkpoint import load_member
from vitbench.training.engine import EpochReport, FitResult, fit
from vitbench.training.evaluation import Predictions

CPU = torch.device("cpu")
IMAGES = tiny.image_set()
ALL = Evaluation(fixed_train_images=6, predictions=True, layers=True)


def train(
    plan: StackPlan, folder: Path, evaluation: Evaluation = ALL
) -> tuple[list[EpochReport], FitResult]:
    reports: list[EpochReport] = []

    def report(epoch: EpochReport) -> bool:
        reports.append(epoch)
        return True

    store = Checkpoints(Place(str(folder)))
    return reports, fit(plan, IMAGES, device=CPU, report=report, store=store, evaluation=evaluation)


def test_measuring_changes_no_model(tmp_path: Path) -> None:
    """The same losses with everything measured and with nothing."""
    plan = tiny.plan({"lr": 3e-3, "seed": 0}, {"lr": 1e-2, "seed": 1})
    off = Evaluation(fixed_train_images=0, predictions=False)
    losses = [
        [
            (row.train_loss, row.val_loss, row.test_loss)
            for report in train(plan, tmp_path / str(number), evaluation)[0]
            for row in report.rows
        ]
        for number, evaluation in enumerate((ALL, off))
    ]
    assert losses[0] == losses[1]


def test_the_loss_on_fixed_training_images_is_that_of_the_weights_then(tmp_path: Path) -> None:
    """Of the last weights on the first six training images, computed plainly."""
    plan = tiny.plan({"lr": 3e-3, "seed": 0}, {"lr": 1e-2, "seed": 1})
    _, result = train(plan, tmp_path)
    pixels = torch.from_numpy(IMAGES.train.images[:6]).float() / 255
    pixels = (pixels - IMAGES.mean[0]) / IMAGES.std[0]
    targets = torch.from_numpy(IMAGES.train.targets[:6, 0])
    for trial in result.trials:
        model, _ = load_member(tmp_path / "checkpoints" / trial.trial_id / "last.safetensors")
        with torch.no_grad():
            logits = model(pixels.unsqueeze(0))[0]
        expected = torch.nn.functional.cross_entropy(logits, targets)
        assert trial.train_end_loss == pytest.approx(float(expected), rel=1e-5)
        hits = (logits.argmax(1) == targets).float().mean()
        assert trial.train_end_accuracy == pytest.approx(float(hits))


@pytest.mark.parametrize(("epochs", "lr"), [(1, 1e-2), (12, 1.0)])
def test_predictions_of_the_best_and_the_last_epoch_are_kept(
    tmp_path: Path, epochs: int, lr: float
) -> None:
    """A row per test image and epoch; their means are the losses of the tables.

    At the high rate the best epoch is not the last one.
    """
    plan = tiny.plan({"lr": 3e-3, "seed": 0}, {"lr": lr, "seed": 1}, epochs=epochs)
    _, result = train(plan, tmp_path)
    assert any(trial.best_epoch != trial.epochs for trial in result.trials) == (epochs > 1)
    for trial in result.trials:
        table = pd.read_parquet(tmp_path / "predictions" / f"{trial.trial_id}.parquet")
        assert set(table["epoch"]) == {trial.best_epoch, trial.epochs}
        by_epoch = table.groupby("epoch")
        assert by_epoch["loss"].mean()[trial.epochs] == pytest.approx(trial.test_loss, rel=1e-5)
        at_best = by_epoch["loss"].mean()[trial.best_epoch]
        assert at_best == pytest.approx(trial.best_test_loss, rel=1e-5)
        last = table[table["epoch"] == trial.epochs].sort_values("test_index")
        assert last["test_index"].tolist() == list(range(len(IMAGES.test.targets)))
        assert last["truth"].tolist() == IMAGES.test.targets[:, 0].tolist()
        right = (last["truth"] == last["predicted"]).mean()
        assert right == pytest.approx(trial.test_accuracy)


def test_a_label_has_its_probability_and_truth(tmp_path: Path) -> None:
    """Models of one label alone in one stack: each with the truth of its own label."""
    plan = tiny.plan({"label": "a"}, {"label": "b"})
    _, result = train(plan, tmp_path)
    for trial, number in zip(result.trials, (0, 1), strict=True):
        table = pd.read_parquet(tmp_path / "predictions" / f"{trial.trial_id}.parquet")
        last = table[table["epoch"] == trial.epochs]
        assert set(last["label"]) == {"ab"[number]}
        assert last["truth"].tolist() == (IMAGES.test.targets[:, 0] == number).astype(int).tolist()
        assert (last["predicted"] == (last["probability"] > 0.5)).all()
        brier = brier_score_loss(last["truth"], last["probability"])
        assert trial.test_brier == pytest.approx(brier, rel=1e-4)


def test_a_model_that_diverged_has_no_last_predictions(tmp_path: Path) -> None:
    """It is frozen where its loss was not finite; nothing of that is shown as an answer."""
    reports, result = train(tiny.plan({"lr": 1e9}), tmp_path)
    (trial,) = result.trials
    assert trial.status == "diverged"
    assert trial.test_ece is None and trial.test_brier is None
    assert reports[-1].rows[0].grad_norm is None


def test_calibration_by_hand() -> None:
    """Four answers in two bins: 0.9 and right twice; 0.6, right once of two."""
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]], dtype=torch.float64)
    made = Predictions(p.log(), torch.tensor([[0], [0], [0], [1]]), binary=False)
    ece, brier = made.calibration()
    assert ece == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)
    assert brier == pytest.approx((0.02 + 0.02 + 0.32 + 0.72) / 4)


def test_of_labels_calibration_looks_at_both_answers() -> None:
    """A label that is denied with certainty and absent is a right answer of confidence one."""
    logits = torch.tensor([[-30.0], [30.0], [math.log(3)]])
    ece, brier = Predictions(logits, torch.tensor([[0], [1], [0]]), binary=True).calibration()
    assert ece == pytest.approx(0.75 / 3, abs=1e-6)
    assert brier == pytest.approx(0.75**2 / 3, abs=1e-6)


def test_layers_are_those_of_each_member_alone(tmp_path: Path) -> None:
    """Norms and entropies of the last epoch against the one model loaded from its file."""
    plan = tiny.plan({"lr": 3e-3, "seed": 0}, {"lr": 1e-2, "seed": 1}, depth=2)
    reports, result = train(plan, tmp_path)
    pixels = (torch.from_numpy(IMAGES.train.images).float() / 255 - IMAGES.mean[0]) / IMAGES.std[0]
    targets = torch.from_numpy(IMAGES.train.targets[:, 0])
    for k, trial in enumerate(result.trials):
        model, _ = load_member(tmp_path / "checkpoints" / trial.trial_id / "last.safetensors")
        loss = torch.nn.functional.cross_entropy(model(pixels.unsqueeze(0))[0], targets)
        loss.backward()
        row = reports[-1].rows[k]
        for number in range(2):
            for measured, flat in (
                (row.grad_norm, model.flat.grad),
                (row.weight_norm, model.flat.detach()),
            ):
                of_block = [
                    tensor.flatten()
                    for name, tensor in model.tensors(flat).items()
                    if name.startswith(f"blocks.{number}.")
                ]
                assert measured is not None
                expected = float(torch.cat(of_block).norm())
                assert measured[number] == pytest.approx(expected, rel=1e-4)
        assert row.attention_entropy is not None
        assert all(0 < value < math.log(5) for value in row.attention_entropy)


def test_attention_entropy_of_uniform_attention(tmp_path: Path) -> None:
    """Queries and keys of zero attend to all five tokens alike: ln 5 in every layer."""
    from vitbench.training.evaluation import measure_layers
    from vitbench.training.stack import Stack

    stack = Stack(tiny.plan({}, {"seed": 1}), IMAGES, CPU)
    with torch.no_grad():
        for name, tensor in stack.model.tensors().items():
            if ".qkv." in name:
                tensor.zero_()
    for measured in measure_layers(stack):
        assert np.allclose(measured.attention_entropy, math.log(5))


def test_rows_travel_as_json() -> None:
    """Lists of layers come back as they went; what is not measured is left out."""
    from vitbench.records.types import EpochRow

    losses = dict.fromkeys(("train_loss", "val_loss", "test_loss"), 0.5)
    accuracies = dict.fromkeys(("train_accuracy", "val_accuracy", "test_accuracy"), 0.5)
    row = EpochRow(trial_id="t", epoch=1, epoch_s=1.0, **losses, **accuracies)
    assert "grad_norm" not in row.to_json() and "train_end_loss" not in row.to_json()
    row = dataclasses.replace(row, grad_norm=[1.0, 2.0])
    assert EpochRow.from_json(row.to_json()) == row
