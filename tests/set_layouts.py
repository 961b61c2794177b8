"""Data sets in their files' usual layouts, with a handful of images each."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.io import savemat

from vitbench.data.sets import mnist

TRAIN, TEST = 60, 30


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, *, packed: bool) -> dict[str, Path]:
    """A tiny MNIST in torchvision's layout: 12 training and 4 test images."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("t10k", 4)):
        images = rng.integers(0, 256, (count, 28, 28))
        for name, array in (
            (f"{part}-images-idx3-ubyte", images),
            (f"{part}-labels-idx1-ubyte", np.arange(count) % 10),
        ):
            content = idx(array)
            if packed:
                (raw / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (raw / name).write_bytes(content)
    found = mnist.find(folder)
    assert found is not None
    return found


def pictures(count: int, *shape: int) -> np.ndarray:
    """Images whose first pixel is their number: order and orientation show."""
    images = np.zeros((count, *shape), dtype=np.uint8)
    images[..., 0, 1] = 200
    images[..., 0, 0] = np.arange(count).reshape(-1, *[1] * (len(shape) - 2))
    return images


def labels(count: int, classes: int) -> np.ndarray:
    return (np.arange(count) % classes).astype(np.uint8)


def write_cifar(folder: Path, name: str) -> None:
    place = folder / ("cifar-10-batches-bin" if name == "cifar10" else "cifar-100-binary")
    place.mkdir(parents=True)
    coarse = name == "cifar100"
    classes = 100 if coarse else 10
    train, test = pictures(TRAIN, 3, 32, 32), pictures(TEST, 3, 32, 32)

    def records(images: np.ndarray, targets: np.ndarray) -> bytes:
        columns = [np.full((len(images), 1), 7, np.uint8)] if coarse else []
        return np.hstack([*columns, targets[:, None], images.reshape(len(images), -1)]).tobytes()

    if coarse:
        (place / "train.bin").write_bytes(records(train, labels(TRAIN, classes)))
        (place / "test.bin").write_bytes(records(test, labels(TEST, classes)))
        (place / "fine_label_names.txt").write_text("\n".join(f"c{n}" for n in range(100)))
        return
    for number, part in enumerate(np.split(np.arange(TRAIN), 5), 1):
        content = records(train[part], labels(TRAIN, classes)[part])
        (place / f"data_batch_{number}.bin").write_bytes(content)
    (place / "test_batch.bin").write_bytes(records(test, labels(TEST, classes)))


def write_idx(folder: Path, place: str, parts: tuple[str, str], classes: int, lying: bool) -> None:
    (folder / place).mkdir(parents=True)
    for part, count in zip(parts, (TRAIN, TEST), strict=True):
        images = pictures(count, 28, 28)
        images = images.swapaxes(1, 2) if lying else images
        for kind, array in (("images-idx3", images), ("labels-idx1", labels(count, classes))):
            file = folder / place / f"{part}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(idx(array)))


def write_svhn(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", TRAIN), ("test", TEST)):
        targets = labels(count, 10).astype(np.uint8)
        targets[targets == 0] = 10
        images = pictures(count, 3, 32, 32).transpose(2, 3, 1, 0)
        savemat(folder / f"{part}_32x32.mat", {"X": images, "y": targets[:, None]})


WRITE: dict[str, tuple[Callable[[Path], None], int, int]] = {
    "cifar10": (lambda f: write_cifar(f, "cifar10"), 10, 3),
    "cifar100": (lambda f: write_cifar(f, "cifar100"), 100, 3),
    "fashion_mnist": (
        lambda f: write_idx(f, "FashionMNIST/raw", ("train", "t10k"), 10, lying=False), 10, 1,
    ),
    "emnist": (
        lambda f: write_idx(
            f, "EMNIST/raw", ("emnist-balanced-train", "emnist-balanced-test"), 47, lying=True
        ), 47, 1,
    ),
    "svhn": (write_svhn, 10, 3),
}  # fmt: skip
