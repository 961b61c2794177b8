"""MNIST from its IDX files, packed or not, or downloaded through torchvision."""

from __future__ import annotations

import hashlib
import math
import os
import socket
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitbench.data import files
from vitbench.data.image_set import ImageSet, Split, resize
from vitbench.data.sets import digits
from vitbench.errors import UserError

_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_targets": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_targets": "t10k-labels-idx1-ubyte",
}
_TRAIN = 50_000  # of the 60,000 training images; the last 10,000 validate
_TIMEOUT_S = 10.0
_PIXELS = 28  # per side
_MOST_DIMENSIONS = 8


def find(data_dir: Path) -> dict[str, Path] | None:
    """The four files under `<data_dir>/MNIST/raw`, packed (.gz) or not; None if one is missing."""
    found = {}
    for key, name in _FILES.items():
        paths = (data_dir / "MNIST/raw" / name, data_dir / "MNIST/raw" / f"{name}.gz")
        there = [path for path in paths if os.path.isfile(path)]
        if not there:
            return None
        found[key] = there[0]
    return found


def download(data_dir: Path) -> dict[str, Path] | None:
    """Fetch MNIST with torchvision, which checks it; None if no mirror can be reached."""
    from vitbench.torchvision_import import torchvision

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        torchvision().datasets.MNIST(str(data_dir), download=True)
    except (RuntimeError, OSError):
        return None
    finally:
        socket.setdefaulttimeout(before)
    return find(data_dir)


def checksum(paths: dict[str, Path], image_size: int) -> str:
    """SHA-256 over the files as they lie on disk, and the size."""
    digest = hashlib.sha256(f"{image_size}".encode())
    for key in sorted(paths):
        try:
            digest.update(paths[key].read_bytes())
        except OSError as error:
            raise UserError(f"{paths[key]}: {error.strerror}; fetch the file again") from error
    return digest.hexdigest()


def load(paths: dict[str, Path], image_size: int) -> ImageSet:
    """Read, check and resize MNIST: 50,000 train, 10,000 validation, 10,000 test images.

    Raises:
        UserError: naming the file that is damaged.
    """
    arrays = {
        key: read_idx(path, images=key.endswith("_images"), classes=len(digits.NAMES))
        for key, path in paths.items()
    }
    for part, least in (("train", 2), ("test", 1)):
        count, labels = len(arrays[f"{part}_images"]), len(arrays[f"{part}_targets"])
        if count != labels or count < least:
            raise UserError(
                f"{paths[f'{part}_images']}: holds {count} images, but "
                f"{paths[f'{part}_targets'].name} holds {labels} labels; at least {least} of each "
                f"are needed, and as many of both; fetch both again"
            )
    train, test = (
        Split(
            resize(arrays[f"{part}_images"][:, None], image_size),
            arrays[f"{part}_targets"].astype(np.int64)[:, None],
        )
        for part in ("train", "test")
    )
    first = np.arange(min(_TRAIN, len(train) * 5 // 6))
    rest = np.arange(len(first), len(train))
    return ImageSet.of(
        "mnist",
        [train.take(first), train.take(rest), test],
        classes=digits.NAMES,
        labels=digits.NAMES,
        checksum=checksum(paths, image_size),
        source=f"MNIST (28x28 pixels, resized to {image_size}x{image_size})",
    )


def stand_in(image_size: int) -> ImageSet:
    """Blank images in MNIST's numbers and classes, to forecast by where it is not at hand."""
    splits = [
        Split(
            np.zeros((count, 1, image_size, image_size), dtype=np.uint8),
            np.arange(count, dtype=np.int64)[:, None] % 10,
        )
        for count in (_TRAIN, 10_000, 10_000)
    ]
    source = "MNIST, not at hand: a run would download it first (70,000 images)"
    return ImageSet.of(
        "mnist", splits, classes=digits.NAMES, labels=digits.NAMES, checksum="", source=source
    )


def read_idx(path: Path, *, images: bool, classes: int) -> NDArray[np.uint8]:
    """Read an IDX file of 28x28 images, or of labels below `classes`, packed or not.

    Returns:
        Images [N, Y, X], or labels [N].

    Raises:
        UserError: if it is damaged, truncated or something else.
    """
    again = "fetch the file again"
    try:
        content = files.read(path)
    except OSError as error:
        raise UserError(f"{path}: is damaged or truncated ({error}); {again}") from None
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or not 0 < content[3] <= _MOST_DIMENSIONS:
        raise UserError(f"{path}: is not an IDX file of bytes; {again}")
    dimensions, start = content[3], 4 + 4 * content[3]
    shape = struct.unpack(f">{dimensions}I", content[4:start]) if len(content) >= start else (0,)
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise UserError(
            f"{path}: holds {len(content):,} bytes where its header promises {expected:,}; "
            f"it is truncated or damaged, fetch it again"
        )
    if shape[1:] != ((_PIXELS, _PIXELS) if images else ()):
        wanted = f"[N, {_PIXELS}, {_PIXELS}] of images" if images else "[N] of labels"
        raise UserError(f"{path}: holds numbers {list(shape)} where {wanted} belong; {again}")
    array = np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
    if not images and len(array) and array.max() >= classes:
        raise UserError(f"{path}: holds the label {array.max()}, of {classes} classes; {again}")
    return array
