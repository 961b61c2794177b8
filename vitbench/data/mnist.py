"""MNIST from its IDX files, packed or not, or downloaded through torchvision."""

from __future__ import annotations

import gzip
import hashlib
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitbench.data import digits
from vitbench.data.image_set import ImageSet, Split, resize
from vitbench.errors import UserError

_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_targets": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_targets": "t10k-labels-idx1-ubyte",
}
_TRAIN = 50_000  # of the 60,000 training images; the last 10,000 validate
_TIMEOUT_S = 10.0


def find(data_dir: Path) -> dict[str, Path] | None:
    """The four files under `<data_dir>/MNIST/raw`, packed (.gz) or not; None if one is missing."""
    files = {}
    for key, name in _FILES.items():
        paths = (data_dir / "MNIST/raw" / name, data_dir / "MNIST/raw" / f"{name}.gz")
        there = [path for path in paths if path.is_file()]
        if not there:
            return None
        files[key] = there[0]
    return files


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


def checksum(files: dict[str, Path], image_size: int) -> str:
    """SHA-256 over the files as they lie on disk, and the size."""
    digest = hashlib.sha256(f"{image_size}".encode())
    for key in sorted(files):
        digest.update(files[key].read_bytes())
    return digest.hexdigest()


def load(files: dict[str, Path], image_size: int) -> ImageSet:
    """Read, check and resize MNIST: 50,000 train, 10,000 validation, 10,000 test images.

    Raises:
        UserError: naming the file that is damaged.
    """
    arrays = {key: read_idx(path) for key, path in files.items()}
    for part in ("train", "test"):
        count, labels = len(arrays[f"{part}_images"]), len(arrays[f"{part}_targets"])
        if count != labels:
            raise UserError(
                f"{files[f'{part}_images']}: holds {count} images, but "
                f"{files[f'{part}_targets'].name} holds {labels} labels; fetch both again"
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
        checksum=checksum(files, image_size),
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


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of bytes, packed or not.

    Raises:
        UserError: if it is damaged, truncated or something else.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path}: is damaged or truncated ({error}); fetch the file again"
        ) from None
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise UserError(f"{path}: is not an IDX file of bytes; fetch the file again")
    dimensions, start = content[3], 4 + 4 * content[3]
    shape = struct.unpack(f">{dimensions}I", content[4:start]) if len(content) >= start else (0,)
    expected = start + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise UserError(
            f"{path}: holds {len(content):,} bytes where its header promises {expected:,}; "
            f"it is truncated or damaged, fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
