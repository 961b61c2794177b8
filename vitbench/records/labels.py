"""labels.parquet: what each trained model says of each label, beside what base rates give away.

Per label and model, after methods that `types.LabelScore` describes column by column:

    H(p)        = -p ln p - (1-p) ln(1-p), the cross entropy of the best constant answer
    NCE         = BCE / H(p), information gain RIG = 1 - NCE (He et al. 2014, doi:10.1145/2648584)
    floor       = NCE of a model that knows the truth (`noise_floor`), excess = (NCE - floor) /
                  (1 - floor): what is left of the loss that flipped labels do not explain
    AP_norm     = (AP - p) / (1 - p): a random order has AP = p
    ALC         = mean of the validation RIG over the epochs trained
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from vitbench.records.types import LabelScore, TrialOutcome

# Settings and ends that a row of a label has from its trial.
_OF_TRIAL = (
    *("trial_id", "dataset", "seed", "lr", "weight_decay", "patch_grid", "depth", "heads", "width"),
    *("batch_size", "optimizer", "matched", "status", "epochs", "best_epoch"),
)
# A label counts as learned once a quarter of its information is, two epochs in a row.
TARGET_RIG = 0.25
SUSTAINED_EPOCHS = 2


def entropy(p: float) -> float:
    """H(p) in nats; 0 where p is 0 or 1."""
    return -sum(q * math.log(q) for q in (p, 1.0 - p) if q > 0.0)


def noise_floor(w: float, p: float, e: float) -> float:
    """NCE of a model that knows the truth, where labels were flipped at random.

    With t the share of images that truly have the label, p = t (1 - e) + (1 - t) e. The label is
    right with probability a = t (1 - e) / p where it says yes, and wrong with b = t e / (1 - p)
    where it says no. Choosing images by their labels changes neither. The best answer to a true
    yes is then q1 = w a / T, with T = w a + (1 - w) b, and to a true no q0 = w (1 - a) / (1 - T).

    Args:
        w: share of images labelled yes among those that are scored: 0.5 where they are matched.
        p: the same before images were chosen by their labels.
        e: share of labels that were flipped, below 0.5.

    Returns:
        (T H(q1) + (1 - T) H(q0)) / H(w); NaN where the three contradict each other: flips alone
        give more of a label than p, or all images are on one side.
    """
    if e == 0.0 and 0.0 < w < 1.0:
        return 0.0
    t = (p - e) / (1.0 - 2.0 * e)
    if not 0.0 < t < 1.0 or not 0.0 < w < 1.0:
        return math.nan
    a, b = t * (1.0 - e) / p, t * e / (1.0 - p)
    true_share = w * a + (1.0 - w) * b
    after_yes, after_no = w * a / true_share, w * (1.0 - a) / (1.0 - true_share)
    left = true_share * entropy(after_yes) + (1.0 - true_share) * entropy(after_no)
    return left / entropy(w)


def wrong_among_positives(p: float, e: float) -> float:
    """Share of the images labelled yes that are truly no; p and e as in `noise_floor`."""
    return 1.0 - (p - e) / (1.0 - 2.0 * e) * (1.0 - e) / p


def excess(nce: float, floor: float) -> float:
    """What is left of the NCE above the floor, as a share: 0 knows the truth, 1 learned nothing."""
    return (nce - floor) / (1.0 - floor)


def label_row(
    trial: TrialOutcome, score: LabelScore, curve: Sequence[tuple[int, float]]
) -> LabelScore:
    """One row of labels.parquet: a worker's score beside its trial and the best constant answer.

    `curve` has (epoch, validation BCE) of this label in order, of epochs with an evaluation; empty
    where a model has several labels.
    """
    alone = trial.label is not None
    p = score.test_positives / score.test_images
    val_p = score.val_positives / score.val_images
    constant = entropy(p)
    nce = score.test_bce / constant if constant > 0.0 else None
    ap = score.average_precision
    rate, noise = score.observed_rate, score.label_noise
    floor = math.nan if rate is None or noise is None else noise_floor(p, rate, noise)
    alc, reached, epochs_to_target = _speed(curve, entropy(val_p))
    return replace(
        score,
        **{name: getattr(trial, name) for name in _OF_TRIAL},
        task="one label" if alone else "all labels",
        train_base_rate=score.train_positives / score.train_images,
        val_base_rate=val_p,
        test_base_rate=p,
        # A model of all labels has one training loss, the mean over them.
        train_loss=trial.train_loss if alone else None,
        constant_bce=constant,
        nce=nce,
        rig=None if nce is None else 1.0 - nce,
        floor=None if math.isnan(floor) else floor,
        excess=None if nce is None or math.isnan(floor) else excess(nce, floor),
        ap_norm=None if ap is None else (ap - p) / (1.0 - p),
        majority_rate=max(p, 1.0 - p),
        alc=alc,
        reached=reached,
        epochs_to_target=epochs_to_target,
    )


def _speed(
    curve: Sequence[tuple[int, float]], constant: float
) -> tuple[float | None, bool | None, int | None]:
    """Area under the learning curve, whether the label was learned and at which epoch."""
    if not curve or constant <= 0.0:
        return None, None, None
    gains = [1.0 - loss / constant for _, loss in curve]
    # Each counts for the epochs since the evaluation before.
    before = [0, *(epoch for epoch, _ in curve[:-1])]
    widths = [epoch - last for (epoch, _), last in zip(curve, before, strict=True)]
    finite = [(g, w) for g, w in zip(gains, widths, strict=True) if math.isfinite(g)]
    alc = sum(g * w for g, w in finite) / sum(w for _, w in finite) if finite else None
    run = 0
    for (epoch, _), gain in zip(curve, gains, strict=True):
        run = run + 1 if gain >= TARGET_RIG else 0
        if run == SUSTAINED_EPOCHS:
            return alc, True, epoch - SUSTAINED_EPOCHS + 1
    return alc, False, None
