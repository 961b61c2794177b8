"""Models that learn labels: matched images, several labels at once, and their scores."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from vitbench.data.image_set import ImageSet, Split
from vitbench.errors import UserError
from vitbench.plan import StackPlan
from vitbench.training.engine import METRICS, FitResult, fit
from vitbench.training.label_scores import scores
from vitbench.training.stack import Stack

CPU = torch.device("cpu")
MATCHED: tuple[dict[str, Any], ...] = (
    {"label": "a", "seed": 0},
    {"label": "c", "seed": 0},
    {"label": "a", "seed": 1},
)


def attributes(count: int = 60) -> ImageSet:
    """Tiny colourless images with two attributes that they show, one rarer than the other."""
    classes = tiny.image_set(count, count, count)

    def split(part: Split) -> Split:
        first, second = part.targets[:, 0] == 0, part.targets[:, 0] != 1
        return Split(part.images, np.stack([first, second], axis=1).astype(np.int64))

    parts = {name: split(getattr(classes, name)) for name in ("train", "val", "test")}
    return dataclasses.replace(classes, **parts, classes=(), labels=("rare", "common"))


def run(plan: StackPlan, images: ImageSet) -> FitResult:
    return fit(plan, images, device=CPU, report=lambda epoch: True)


def test_matched_draws_the_same_numbers_for_every_label() -> None:
    """As many with the label as without, of every label as many, and the draw is fixed."""
    images = tiny.image_set(60, 40, 30)
    for label, number in (("a", 0), ("b", 1), ("c", 2)):
        index = images.matched("train", label, 7)
        assert len(set(index.tolist())) == 14
        assert (images.train.targets[index, 0] == number).sum() == 7
        assert (index == images.matched("train", label, 7)).all()
    for split in ("val", "test"):
        counts = np.bincount(getattr(images, split).targets[:, 0], minlength=3)
        rarest = min(*counts, *(counts.sum() - counts))
        for label, number in (("a", 0), ("b", 1), ("c", 2)):
            index = images.matched(split, label, 7)
            assert len(index) == 2 * rarest
            assert (getattr(images, split).targets[index, 0] == number).sum() == rarest


def test_matching_more_than_there_is_names_both_numbers() -> None:
    """The message tells how many the label allows."""
    images = tiny.image_set(60)
    there = int((images.train.targets[:, 0] == 1).sum())
    with pytest.raises(UserError, match=f"use at most {there}"):
        images.matched("train", "b", there + 1)


def test_matched_members_of_one_stack_equal_runs_alone() -> None:
    """Members of a stack see the images of their own label, in training and in judgement."""
    images = tiny.image_set(60, 40, 30)
    together = run(tiny.plan(*MATCHED, matched=9), images)
    for k, member in enumerate(MATCHED):
        alone = run(tiny.plan(member, matched=9), images)
        for name in METRICS:
            expected = getattr(alone.trials[0], name)
            got = getattr(together.trials[k], name)
            if expected is not None:
                expected = pytest.approx(expected, rel=1e-4)
            assert got == expected, (member, name)
        (score,) = together.trials[k].labels
        assert (score.train_images, score.train_positives) == (18, 9)
        assert score.test_positives * 2 == score.test_images
        assert together.trials[k].train_images == 18


def test_matched_losses_are_of_the_matched_images() -> None:
    """The test loss of a matched member, computed from its predictions on the drawn images."""
    images = tiny.image_set(60, 40, 30)
    stack = Stack(tiny.plan(*MATCHED, matched=9), images, CPU)
    loss_K, accuracy_K = stack.evaluate("test")
    for k, member in enumerate(MATCHED):
        index = images.matched("test", member["label"], 9)
        pixels = torch.from_numpy(images.test.images[index].astype(np.float32) / 255.0)
        normal = (pixels - images.mean[0]) / images.std[0]
        with torch.no_grad():
            logits = stack.model(normal.expand(3, *normal.shape))[k, :, 0].double()
        truth = torch.from_numpy(images.binary_targets("test", member["label"])[index]).double()
        p = torch.sigmoid(logits)
        bce = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean()
        assert loss_K[k].item() == pytest.approx(bce.item(), rel=1e-5)
        assert accuracy_K[k].item() == pytest.approx(((p > 0.5) == (truth > 0.5)).double().mean())


def test_all_labels_at_once_have_an_output_each() -> None:
    """Loss and accuracy are means over the labels, each against its own column."""
    images = attributes()
    stack = Stack(tiny.plan({"seed": 0}, {"seed": 1}), images, CPU)
    assert stack.model.shape.outputs == 2
    loss_K, accuracy_K = stack.evaluate("val")
    logits_KNO, targets_KNO = stack.predictions("val"), stack.targets("val")
    assert (targets_KNO.numpy() == images.val.targets).all()
    for k in range(2):
        z, y = logits_KNO[k].double().numpy(), images.val.targets
        by_hand = np.mean(-np.log(1 / (1 + np.exp(-np.where(y == 1, z, -z)))))
        assert loss_K[k].item() == pytest.approx(by_hand, rel=1e-5)
        assert accuracy_K[k].item() == pytest.approx(((z > 0) == (y == 1)).mean())


def test_all_labels_at_once_are_learned() -> None:
    """Training on both attributes ends well below the constants' loss, with a row for each."""
    images = attributes()
    result = run(tiny.plan({"lr": 3e-3, "seed": 0}, epochs=12), images)
    rows = {score.label: score for score in result.trials[0].labels}
    assert list(rows) == ["rare", "common"]
    for column, name in enumerate(rows):
        assert rows[name].test_positives == images.test.targets[:, column].sum()
    assert (result.trials[0].train_loss or 9) < 0.45
    assert (rows["rare"].roc_auc or 0) > 0.8


def test_scores_of_a_label_by_hand() -> None:
    """Six images, worked out on paper."""
    logits = np.array([3.0, 2.0, 1.0, -1.0, -2.0, -3.0])
    truth = np.array([1, 0, 1, 0, 0, 1])
    found = scores(logits, truth)
    # Of 9 pairs (with, without) 5 are in the right order: 2 + ... (3 > 2,-1,-2: 3; 1 > -1,-2: 2).
    assert found["roc_auc"] == pytest.approx(5 / 9)
    assert found["average_precision"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 3)
    # Decided: with = first three. TP 2, FP 1, TN 2, FN 1.
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)
    assert found["test_accuracy"] == pytest.approx(4 / 6)
    assert found["mcc"] == pytest.approx((2 * 2 - 1 * 1) / math.sqrt(3 * 3 * 3 * 3))
    nats = [math.log1p(math.exp(-z if y else z)) for z, y in zip(logits, truth, strict=True)]
    assert found["test_bce"] == pytest.approx(sum(nats) / 6)


def test_scores_of_one_side_only() -> None:
    """Nothing ranks where there is nothing to tell apart; cross entropy still stands."""
    found = scores(np.array([800.0, -800.0]), np.array([1, 1]))
    assert found["roc_auc"] is None and found["average_precision"] is None
    assert found["test_bce"] == pytest.approx(400.0)


def test_label_scores_are_of_the_best_epoch() -> None:
    """The scores are those of the weights of lowest validation loss, not of the last ones."""
    result = run(tiny.plan({"label": "b", "lr": 0.03}, epochs=20), tiny.image_set(12, 40, 30))
    trial = result.trials[0]
    assert trial.best_epoch is not None and trial.epochs is not None
    assert trial.best_epoch < trial.epochs, "choose settings that get worse at the end"
    assert trial.labels[0].test_bce == pytest.approx(trial.best_test_loss, rel=1e-5)
