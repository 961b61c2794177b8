"""labels.parquet: what each trained model says of each label, beside what base rates give away.

Per label and model, after methods that are described column by column in `rows.LABELS`:

    H(p)        = -p ln p - (1-p) ln(1-p), the cross entropy of the best constant answer
    NCE         = BCE / H(p), information gain RIG = 1 - NCE (He et al. 2014, doi:10.1145/2648584)
    AP_norm     = (AP - p) / (1 - p): a random order has AP = p
    ALC         = mean of the validation RIG over the epochs trained
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

# A label counts as learned once a quarter of its information is, two epochs in a row.
TARGET_RIG = 0.25
SUSTAINED_EPOCHS = 2


def entropy(p: float) -> float:
    """H(p) in nats; 0 where p is 0 or 1."""
    return -sum(q * math.log(q) for q in (p, 1.0 - p) if q > 0.0)


def label_row(
    trial: Mapping[str, Any], raw: Mapping[str, Any], curve: Sequence[tuple[int, float]]
) -> dict[str, Any]:
    """One row of labels.parquet.

    Args:
        trial: the trial's row.
        raw: counts and scores as the engine reported them.
        curve: (epoch, validation BCE) of this label in order; empty where a model has several.
    """
    row: dict[str, Any] = {name: trial.get(name) for name in _FROM_TRIAL}
    row |= {name: raw[name] for name in raw if name != "test_bce"}
    row["task"] = "one label" if trial.get("label") is not None else "all labels"
    if row["task"] == "all labels":
        row["train_loss"] = None  # the model has one, the mean over its labels
    for split in ("train", "val", "test"):
        row[f"{split}_base_rate"] = raw[f"{split}_positives"] / raw[f"{split}_images"]
    p = row["test_base_rate"]
    constant = entropy(p)
    row["test_bce"], row["constant_bce"] = raw["test_bce"], constant
    row["majority_rate"] = max(p, 1.0 - p)
    if constant > 0.0:
        row["nce"] = raw["test_bce"] / constant
        row["rig"] = 1.0 - row["nce"]
    if raw["average_precision"] is not None:
        row["ap_norm"] = (raw["average_precision"] - p) / (1.0 - p)
    return row | _speed(curve, entropy(row["val_base_rate"]))


def _speed(curve: Sequence[tuple[int, float]], constant: float) -> dict[str, Any]:
    """Area under the learning curve and the epoch at which the label was learned."""
    if not curve or constant <= 0.0:
        return {}
    gains = [(epoch, 1.0 - loss / constant) for epoch, loss in curve]
    finite = [gain for _, gain in gains if math.isfinite(gain)]
    found: dict[str, Any] = {"reached": False}
    if finite:
        found["alc"] = sum(finite) / len(finite)
    run = 0
    for epoch, gain in gains:
        run = run + 1 if gain >= TARGET_RIG else 0
        if run == SUSTAINED_EPOCHS:
            return found | {"reached": True, "epochs_to_target": epoch - SUSTAINED_EPOCHS + 1}
    return found


_FROM_TRIAL = (
    "trial_id", "dataset", "seed", "lr", "weight_decay", "patch_grid", "depth", "heads", "width",
    "batch_size", "optimizer", "matched", "status", "epochs", "best_epoch", "train_loss",
)  # fmt: skip
