"""How well binary labels are predicted on the test images, beside what their base rates give away.

Shape legend: N images, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitbench.data.image_set import SPLITS, ImageSet
from vitbench.records.types import LabelScore
from vitbench.training.evaluation import Predictions
from vitbench.training.stack import Stack


def label_scores(
    stack: Stack, images: ImageSet, best: Sequence[Predictions]
) -> list[list[LabelScore]]:
    """Scores of every member's labels at its best weights; none where outputs are classes.

    A member with one label has one; a member that learns all attributes has one for each. `best`
    is what each member's best weights say of the test images.
    """
    if not stack.binary:
        return [[] for _ in stack.plan.members]
    targets_of = {split: stack.targets(split) for split in SPLITS}
    rows = []
    for k, member in enumerate(stack.plan.members):
        label = member.train.label
        names = (label,) if label is not None else images.labels
        logits_NO = best[k].logits_NO.double().numpy()
        truth = {
            split: part[k].reshape(-1, len(names)).numpy() for split, part in targets_of.items()
        }
        scores_of_member = []
        for o, name in enumerate(names):
            counts: dict[str, Any] = {}
            for split, part_NO in truth.items():
                counts[f"{split}_images"] = len(part_NO)
                counts[f"{split}_positives"] = int(part_NO[:, o].sum())
            score = LabelScore(
                label=name,
                **counts,
                label_noise=images.label_noise,
                observed_rate=float(images.binary_targets("test", name).mean()),
                **scores(logits_NO[:, o], truth["test"][:, o]),
            )
            scores_of_member.append(score)
        rows.append(scores_of_member)
    return rows


def scores(logits: NDArray[np.float64], truth: NDArray[np.int64]) -> dict[str, Any]:
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
