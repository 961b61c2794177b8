"""How well binary labels are predicted on the test images, beside what their base rates give away.

Shape legend: K members, N images, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitbench.data.image_set import ImageSet
from vitbench.records.types import LabelScore
from vitbench.training.stack import Stack


class Scores(TypedDict):
    """How well one label is told on the test images; None where all are on one side."""

    test_bce: float
    test_accuracy: float
    roc_auc: float | None
    average_precision: float | None
    mcc: float | None
    balanced_accuracy: float | None


def label_scores(stack: Stack, images: ImageSet, best_KP: Tensor) -> list[list[LabelScore]]:
    """Scores of every member's labels at its best weights; none where outputs are classes.

    A member with one label has one; a member that learns all attributes has one for each.

    Args:
        stack: gets the best weights for the time of the call.
        images: what it was trained on.
        best_KP: weights of each member at its best epoch.
    """
    if not stack.binary:
        return [[] for _ in stack.plan.members]
    with stack.weights(best_KP):
        logits_KNO, targets = stack.predictions("test")
        _, val_targets = stack.predictions("val")
    train_targets = stack.training_targets()
    rows = []
    for k, member in enumerate(stack.plan.members):
        label = member.train.label
        names = (label,) if label is not None else images.labels
        logits_NO = logits_KNO[k].double().numpy()
        test_NO, val_NO, train_NO = (
            part[k].reshape(-1, len(names)).numpy()
            for part in (targets, val_targets, train_targets)
        )
        rows.append(
            [
                LabelScore(
                    label=name,
                    train_images=len(train_NO),
                    train_positives=int(train_NO[:, o].sum()),
                    val_images=len(val_NO),
                    val_positives=int(val_NO[:, o].sum()),
                    test_images=len(test_NO),
                    test_positives=int(test_NO[:, o].sum()),
                    label_noise=images.label_noise,
                    observed_rate=float(images.binary_targets("test", name).mean()),
                    **scores(logits_NO[:, o], test_NO[:, o]),
                )
                for o, name in enumerate(names)
            ]
        )
    return rows


def scores(logits: NDArray[np.float64], truth: NDArray[np.int64]) -> Scores:
    """Cross entropy in nats and the quality of ranking and decision of one label.

    What needs both sides is None where all images are on one.
    """
    from sklearn import metrics

    decided = logits > 0
    # log(1 + exp(-z)) for the label, log(1 + exp(z)) without it; logaddexp does not overflow.
    bce = np.logaddexp(0.0, np.where(truth == 1, -logits, logits)).mean()
    both = 0 < int(truth.sum()) < len(truth)

    def needs_both(metric: Callable[..., float], answers: NDArray[Any]) -> float | None:
        return float(metric(truth, answers)) if both else None

    return {
        "test_bce": float(bce),
        "test_accuracy": float((decided == truth).mean()),
        "roc_auc": needs_both(metrics.roc_auc_score, logits),
        "average_precision": needs_both(metrics.average_precision_score, logits),
        "mcc": needs_both(metrics.matthews_corrcoef, decided),
        "balanced_accuracy": needs_both(metrics.balanced_accuracy_score, decided),
    }
