"""scikit-learn's handwritten digits: real images that need no network."""

from __future__ import annotations

import hashlib

import numpy as np

from vitbench.data.image_set import ImageSet, Split, stratified_order
from vitbench.data.resize import channel_statistics, resize

TRAIN, VAL, TEST = 1197, 300, 300


def load(image_size: int) -> ImageSet:
    """The 1,797 images, resized, in a fixed stratified split of 1,197 / 300 / 300."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * (255.0 / 16.0)).astype(np.uint8)[:, None]
    targets = bunch.target.astype(np.int64)[:, None]
    digest = hashlib.sha256(grey.tobytes() + targets.tobytes() + f"{image_size}".encode())
    images = resize(grey, image_size)
    order = stratified_order(targets[:, 0])
    ends = np.cumsum([TRAIN, VAL, TEST])
    train, val, test = (Split(images[index], targets[index]) for index in np.split(order, ends[:2]))
    mean, std = channel_statistics(train.images)
    names = tuple(str(digit) for digit in range(10))
    return ImageSet(
        name="digits",
        train=train,
        val=val,
        test=test,
        classes=names,
        labels=names,
        mean=mean,
        std=std,
        checksum=digest.hexdigest(),
        source=f"digits (scikit-learn's 1,797 handwritten digits of 8x8 pixels, resized to "
        f"{image_size}x{image_size})",
    )
