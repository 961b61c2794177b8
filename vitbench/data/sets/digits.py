"""scikit-learn's handwritten digits: real images that need no network."""

from __future__ import annotations

import hashlib

import numpy as np

from vitbench.data.image_set import ImageSet, Split, resize, stratified_order

TRAIN, VAL, TEST = 1197, 300, 300
NAMES = tuple("0123456789")


def load(image_size: int) -> ImageSet:
    """The 1,797 images, resized, in a fixed stratified split of 1,197 / 300 / 300."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * (255.0 / 16.0)).astype(np.uint8)[:, None]
    targets = bunch.target.astype(np.int64)[:, None]
    digest = hashlib.sha256(grey.tobytes() + targets.tobytes() + f"{image_size}".encode())
    images = resize(grey, image_size)
    parts = np.split(stratified_order(targets[:, 0]), (TRAIN, TRAIN + VAL))
    return ImageSet.of(
        "digits",
        [Split(images[index], targets[index]) for index in parts],
        classes=NAMES,
        labels=NAMES,
        checksum=digest.hexdigest(),
        source=f"digits (scikit-learn's 1,797 handwritten digits of 8x8 pixels, resized to "
        f"{image_size}x{image_size})",
    )
