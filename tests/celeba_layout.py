"""Drawn faces written to disk as CelebA is: what its loader reads, without CelebA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitbench.data.sets.faces import faces

WIDTH, HEIGHT = 178, 218  # pixels of CelebA's aligned pictures
TRAIN, VALID, TEST = 162_770, 19_867, 19_962  # images of CelebA's own partition, in this order
LANDMARKS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")


def write_celeba_layout(folder: Path, count: int, *, seed: int = 0) -> faces.Faces:
    """Draw faces into `<folder>/celeba`, in the files and formats of CelebA's distribution.

    Pictures are img_align_celeba/000001.jpg and so on. Values in the tables are divided by
    spaces; list_attr_celeba.txt has the drawn attributes alone (1 or -1), not all 40. The
    partition has CelebA's shares in CelebA's order (0 train, 1 valid, 2 test), with at least one
    picture each. Every face is a person of its own, and the boxes, which CelebA states for
    pictures it does not ship in this folder, are those of the drawn heads.

    Args:
        count: pictures, 3 to 999,999.
        seed: picture 000001.jpg is face 0 of this seed.

    Returns:
        The faces as they were drawn.
    """
    root = folder / "celeba"
    pictures = root / "img_align_celeba"
    pictures.mkdir(parents=True)
    names = [f"{number:06d}.jpg" for number in range(1, count + 1)]
    drawn = faces.draw(count, (WIDTH, HEIGHT), seed=seed, workers=1)
    for name, image in zip(names, drawn.images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(pictures / name, quality=92)
    marks = drawn.landmarks
    axes = [f"{mark}_{axis}" for mark in LANDMARKS for axis in "xy"]
    tables = (
        # CelebA ends the first two headers with a space.
        ("list_attr_celeba.txt", drawn.attributes * 2 - 1, [*faces.ATTRIBUTES, ""], 2),
        ("list_landmarks_align_celeba.txt", _whole(marks).reshape(count, -1), [*axes, ""], 4),
        ("list_bbox_celeba.txt", _boxes(marks), ["image_id", "x_1", "y_1", "width", "height"], 3),
    )
    for name, values, header, width in tables:
        _write(root / name, names, values, width, [str(count), " ".join(header)])
    _write(root / "identity_CelebA.txt", names, np.arange(1, count + 1)[:, None], 1)
    _write(root / "list_eval_partition.txt", names, partition(count)[:, None], 1)
    return drawn


def partition(count: int) -> NDArray[np.int64]:
    """CelebA's part of each of `count` pictures: 0 train, 1 valid, 2 test; [count]."""
    total = TRAIN + VALID + TEST
    valid, test = (max(1, round(count * share / total)) for share in (VALID, TEST))
    return np.repeat(np.arange(3), [count - valid - test, valid, test]).astype(np.int64)


def _whole(marks: NDArray[np.float32]) -> NDArray[np.int64]:
    """The pixels that landmarks lie in: CelebA counts them, the first one being 0."""
    return np.floor(marks).astype(np.int64)


def _boxes(marks: NDArray[np.float32]) -> NDArray[np.int64]:
    """Left, top, width and height of the head around its eyes: [N, 4] pixels."""
    left, right = marks[:, 0].astype(np.float64), marks[:, 1].astype(np.float64)
    between = np.linalg.norm(right - left, axis=1, keepdims=True)
    corner = (left + right) / 2 - between * (1.2, 1.8)
    return np.round(np.hstack([corner, between * (2.4, 3.9)])).astype(np.int64)


def _write(
    path: Path, names: list[str], values: NDArray[np.int64], width: int, head: Sequence[str] = ()
) -> None:
    """One table of [N, columns], each value padded to `width`."""
    rows = (
        f"{name} " + " ".join(f"{value:{width}d}" for value in row)
        for name, row in zip(names, values.tolist(), strict=True)
    )
    path.write_text("\n".join((*head, *rows)) + "\n", encoding="ascii")
