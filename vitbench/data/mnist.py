"""MNIST from its IDX files, packed or not, or downloaded through torchvision."""

from __future__ import annotations

import gzip
import hashlib
import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitbench.data.image_set import ImageSet, Split
from vitbench.data.resize import channel_statistics, resize
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
        for path in (data_dir / "MNIST/raw" / name, data_dir / "MNIST/raw" / f"{name}.gz"):
            if path.is_file():
                files[key] = path
                break
        else:
            return None
    return files


def download(data_dir: Path) -> dict[str, Path] | None:
    """Fetch MNIST with torchvision, which checks it; None if no mirror can be reached."""
    from vitbench.data._torchvision import torchvision

    with _socket_timeout(_TIMEOUT_S):
        try:
            torchvision().datasets.MNIST(str(data_dir), download=True)
        except (RuntimeError, OSError):
            return None
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
    images = {
        part: resize(arrays[f"{part}_images"][:, None], image_size) for part in ("train", "test")
    }
    targets = {
        part: arrays[f"{part}_targets"].astype(np.int64)[:, None] for part in ("train", "test")
    }
    first = min(_TRAIN, len(images["train"]) * 5 // 6)
    train = Split(images["train"][:first], targets["train"][:first])
    mean, std = channel_statistics(train.images)
    names = tuple(str(digit) for digit in range(10))
    return ImageSet(
        name="mnist",
        train=train,
        val=Split(images["train"][first:], targets["train"][first:]),
        test=Split(images["test"], targets["test"]),
        classes=names,
        labels=names,
        mean=mean,
        std=std,
        checksum=checksum(files, image_size),
        source=f"MNIST (28x28 pixels, resized to {image_size}x{image_size})",
    )


def stand_in(image_size: int) -> ImageSet:
    """Blank images in MNIST's numbers and classes, to forecast by where it is not at hand."""

    def blank(count: int) -> Split:
        pixels = np.zeros((count, 1, image_size, image_size), dtype=np.uint8)
        return Split(pixels, np.arange(count, dtype=np.int64)[:, None] % 10)

    names = tuple(str(digit) for digit in range(10))
    return ImageSet(
        name="mnist",
        train=blank(_TRAIN),
        val=blank(10_000),
        test=blank(10_000),
        classes=names,
        labels=names,
        mean=(0.0,),
        std=(1.0,),
        checksum="",
        source="MNIST, not at hand: a run would download it first (70,000 images)",
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
    dimensions = content[3]
    start = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", content[4:start]) if len(content) >= start else (0,)
    expected = start + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise UserError(
            f"{path}: holds {len(content):,} bytes where its header promises {expected:,}; "
            f"it is truncated or damaged, fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
