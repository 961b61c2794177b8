"""Which images a model may see: one fixed subset for all seeds, or one that each seed draws anew.

A fixed subset is cut out once, for the whole stack. Where seeds draw (`train.subset: per_seed`) the
stack keeps all training images, and each seed has a pool of indices into them: the beginning of
its own stratified order, so that its smaller subsets lie in its larger ones and all arms of a seed
train on the same images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitbench.config import SharedTrain
from vitbench.data.image_set import ImageSet


def cut(images: ImageSet, train: SharedTrain) -> ImageSet:
    """The images of a stack; all training images where each seed draws its own.

    Raises:
        UserError: if a split has fewer images than asked for.
    """
    count = None if train.subset == "per_seed" else train.train_images
    return images.subset(count, train.val_images, train.test_images)


def pool(
    images: ImageSet, split: str, train: SharedTrain, label: str | None, seed: int | None
) -> NDArray[np.int64]:
    """The images of a split that a model may see, as indices into what `cut` returned.

    Args:
        images: as `cut` returned them.
        split: train, val or test.
        train: what the stack's members have in common.
        label: that images are matched for, where `train.matched` asks for it.
        seed: that draws the training images; None where all seeds share them.

    Raises:
        UserError: if there are too few images to match.
    """
    drawn = None
    if seed is not None and split == "train":
        drawn = images.drawn(seed)[: train.train_images]
    if label is not None and train.matched is not None:
        return images.matched(split, label, train.matched, drawn)
    return np.arange(len(getattr(images, split))) if drawn is None else drawn
