"""The drawn faces as a data set: 80 % to train, 10 % to validate, 10 % to test."""

from __future__ import annotations

import hashlib
from itertools import pairwise

from vitbench.config import Dataset
from vitbench.data import attributes
from vitbench.data.decode import Watch
from vitbench.data.faces import faces
from vitbench.data.image_set import ImageSet, Split
from vitbench.data.resize import channel_statistics

COUNT = 20_000


def key(dataset: Dataset) -> str:
    """Name of the prepared images; changes with the settings and the drawing's version."""
    count = dataset.count or COUNT
    settings = (dataset.image_size, dataset.labels, count, _noise(dataset), faces.VERSION)
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


def load(dataset: Dataset, watch: Watch | None = None) -> ImageSet:
    """Draw the faces, on all cores.

    Args:
        dataset: how many, how large, which labels (all if None), how many of them wrong.
        watch: told of the progress.

    Raises:
        UserError: for a label that is not drawn.
    """
    count, size, noise = dataset.count or COUNT, dataset.image_size, _noise(dataset)
    names, columns = attributes.chosen_columns(dataset.labels, faces.ATTRIBUTES, "faces")
    report = None if watch is None else lambda done: watch("drawing faces", done, count)
    drawn = faces.draw(count, size, noise=noise, progress=report)
    targets, held_out = drawn.attributes[:, columns], round(count / 10)
    ends = (0, count - 2 * held_out, count - held_out, count)
    train, val, test = (
        Split(drawn.images[start:end], targets[start:end], drawn.landmarks[start:end])
        for start, end in pairwise(ends)
    )
    digest = hashlib.sha256(repr((size, names)).encode())
    digest.update(drawn.images.tobytes() + targets.tobytes())
    mean, std = channel_statistics(train.images)
    return ImageSet(
        name="faces",
        train=train,
        val=val,
        test=test,
        classes=(),
        labels=tuple(names),
        mean=mean,
        std=std,
        checksum=digest.hexdigest(),
        source=f"faces ({count:,} drawn faces of {size}x{size} pixels, not photographs; "
        f"{100 * noise:g} % of the labels are wrong on purpose)",
        label_noise=noise,
    )


def _noise(dataset: Dataset) -> float:
    return faces.NOISE if dataset.label_noise is None else dataset.label_noise
