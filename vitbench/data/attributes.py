"""From decoded files and a table of attributes to an image set; bad images are left out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitbench.data.decode import Files, Watch, decode_all
from vitbench.data.image_set import ImageSet, Split
from vitbench.data.resize import channel_statistics
from vitbench.errors import UserError
from vitbench.words import did_you_mean

_NAMED = 3


def chosen_columns(
    wanted: Sequence[str] | None, known: Sequence[str], owner: str
) -> tuple[list[str], list[int]]:
    """The labels that a sweep asks for and their columns; all of them by default.

    Raises:
        UserError: for a label that is not there, with the nearest that is.
    """
    names = list(known if wanted is None else wanted)
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"dataset.labels: {owner} has no label {name!r}; {hint}")
    return names, [list(known).index(name) for name in names]


def build(
    files: Files,
    *,
    name: str,
    size: int,
    folder: Path,
    targets: dict[str, NDArray[np.int64]],
    landmarks: dict[str, NDArray[np.float32]] | None,
    classes: Sequence[str],
    labels: Sequence[str],
    source: str,
    watch: Watch | None,
) -> ImageSet:
    """Decode the files and put the image set together.

    Args:
        files: what to decode.
        name: of the data set.
        size: pixels per side.
        folder: where the arrays grow (see cache.cached).
        targets: of each split, [N, L].
        landmarks: of each split, [N, points, 2] in pixels after cropping and resizing.
        classes, labels: as in ImageSet.
        source: one sentence for people; what was left out is added.
        watch: told of the progress.

    Raises:
        UserError: if too many files are bad, or a split is left with none.
    """
    decoded = decode_all(files, size, folder, watch)
    splits = {}
    digest = hashlib.sha256(repr((name, size, list(classes), list(labels))).encode())
    for split, images in decoded.images.items():
        kept = np.setdiff1d(np.arange(len(images)), list(decoded.bad[split]))
        if not len(kept):
            raise UserError(
                f"{files.place}: leaves no image for the {split} split; add images, or choose "
                f"another split"
            )
        whole = len(kept) == len(images)
        marks = landmarks[split][kept] if landmarks is not None else None
        splits[split] = Split(images if whole else images[kept], targets[split][kept], marks)
        digest.update(np.ascontiguousarray(splits[split].images).data)
        digest.update(np.ascontiguousarray(splits[split].targets).data)
    reasons = [reason for rows in decoded.bad.values() for reason in rows.values()]
    if reasons:
        named = "; ".join(reasons[:_NAMED]) + ("; ..." if len(reasons) > _NAMED else "")
        source += f"; {len(reasons)} image file{'s' * (len(reasons) > 1)} left out ({named})"
    mean, std = channel_statistics(splits["train"].images)
    return ImageSet(
        name=name,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        classes=tuple(classes),
        labels=tuple(labels),
        mean=mean,
        std=std,
        checksum=digest.hexdigest(),
        source=source,
    )
