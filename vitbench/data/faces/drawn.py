"""The drawn faces as a data set: a stand-in where CelebA is not at hand."""

from __future__ import annotations

import hashlib

from vitbench.config import Dataset
from vitbench.data import attributes
from vitbench.data.decode import Watch
from vitbench.data.faces import faces
from vitbench.data.image_set import ImageSet, Split
from vitbench.data.resize import channel_statistics

COUNT = 20_000
_SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def key(dataset: Dataset) -> str:
    """Name of the prepared images; changes with the settings and the drawing's version."""
    settings = (dataset.image_size, dataset.labels, dataset.count or COUNT, faces.VERSION)
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


def load(dataset: Dataset, watch: Watch | None = None) -> ImageSet:
    """Draw the faces: 80 % to train, 10 % to validate, 10 % to test.

    Raises:
        UserError: for a label that is not drawn.
    """
    count, size = dataset.count or COUNT, dataset.image_size
    names, columns = attributes.chosen_columns(dataset.labels, faces.ATTRIBUTES, "faces")
    report = None if watch is None else lambda done: watch("drawing faces", done, count)
    drawn = faces.draw(count, size, noise=faces.NOISE, progress=report)
    held_out = round(_SHARES["val"] * count)
    ends = {
        "train": slice(0, count - 2 * held_out),
        "val": slice(count - 2 * held_out, count - held_out),
        "test": slice(count - held_out, None),
    }
    digest = hashlib.sha256(repr((size, names)).encode())
    splits = {}
    for split, part in ends.items():
        targets = drawn.attributes[part][:, columns]
        splits[split] = Split(drawn.images[part], targets, drawn.landmarks[part])
        digest.update(splits[split].images.tobytes() + targets.tobytes())
    mean, std = channel_statistics(splits["train"].images)
    return ImageSet(
        name="faces",
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        classes=(),
        labels=tuple(names),
        mean=mean,
        std=std,
        checksum=digest.hexdigest(),
        source=f"faces ({count:,} drawn faces of {size}x{size} pixels, not photographs; "
        f"{100 * faces.NOISE:g} % of the labels are wrong on purpose)",
        label_noise=faces.NOISE,
    )
