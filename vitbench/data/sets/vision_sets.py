"""Image sets by name, from the files that torchvision's classes keep in their usual folders.

    cifar10        cifar-10-batches-bin/   data_batch_1.bin ... data_batch_5.bin, test_batch.bin
    cifar100       cifar-100-binary/       train.bin, test.bin, fine_label_names.txt
    fashion_mnist  FashionMNIST/raw/       as MNIST
    emnist         EMNIST/raw/             emnist-balanced-train-images-idx3-ubyte, ...
    svhn           train_32x32.mat, test_32x32.mat

Of CIFAR these are the binary versions: the ones that torchvision downloads are pickles, which run
code when they are read. Test splits are the official ones; the last part of each training split
validates, always the same.
"""

from __future__ import annotations

import hashlib
import io
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitbench.data.files import digest as sha256_of
from vitbench.data.files import read
from vitbench.data.image_set import ImageSet, Split, resize
from vitbench.data.sets.mnist import read_idx
from vitbench.errors import UserError

Files = dict[str, Path]
Array = NDArray[np.uint8]
_TIMEOUT_S = 10.0
_DIGITS = tuple("0123456789")
_CIFAR_10 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_CIFAR_100 = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"


@dataclass(frozen=True)
class VisionSet:
    """One of the sets of this module."""

    title: str
    files: tuple[str, ...]  # below the data folder; any of them may be packed (.gz)
    held_out: int  # one of so many training images validates, from the end
    read: Callable[[Files], tuple[Array, Array, Array, Array]]  # train and test, images and targets
    classes: Callable[[Files], tuple[str, ...]]
    fetch: Callable[[Any, str], object]  # with torchvision's `datasets`, into the data folder

    def find(self, base: Path) -> Files | None:
        """Its files by name; None if one is missing."""
        found: Files = {}
        for name in self.files:
            there = [p for p in (base / name, base / f"{name}.gz") if os.path.isfile(p)]
            if not there:
                return None
            found[Path(name).name] = there[0]
        return found

    def download(self, base: Path) -> Files | None:
        """Fetch it with torchvision, which checks it; None if no mirror can be reached."""
        from vitbench.torchvision_import import torchvision

        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_TIMEOUT_S)
        try:
            self.fetch(torchvision().datasets, str(base))
        except (RuntimeError, OSError):
            return None
        finally:
            socket.setdefaulttimeout(before)
        return self.find(base)

    def load(self, name: str, files: Files, image_size: int) -> ImageSet:
        """Read, check and resize it.

        Raises:
            UserError: naming the file that is damaged.
        """
        train_images, train_targets, test_images, test_targets = self.read(files)
        classes = self.classes(files)
        parts = []
        for part, images, targets in (
            ("training", train_images, train_targets),
            ("test", test_images, test_targets),
        ):
            if len(images) != len(targets) or len(images) < 2 * self.held_out:
                raise UserError(
                    f"{next(iter(files.values())).parent}: the {part} files of {self.title} hold "
                    f"{len(images)} images and {len(targets)} labels; fetch them again"
                )
            if int(targets.max()) >= len(classes):
                raise UserError(
                    f"{next(iter(files.values())).parent}: a {part} label of {self.title} is "
                    f"{int(targets.max())}, of {len(classes)} classes; fetch the files again"
                )
            parts.append(Split(resize(images, image_size), targets.astype(np.int64)[:, None]))
        train, test = parts
        first = np.arange(len(train) - len(train) // self.held_out)
        rest = np.arange(len(first), len(train))
        return ImageSet.of(
            name,
            [train.take(first), train.take(rest), test],
            classes=classes,
            labels=classes,
            checksum=checksum(files, image_size),
            source=f"{self.title} ({images.shape[-1]}x{images.shape[-1]} pixels, resized to "
            f"{image_size}x{image_size})",
        )


def checksum(files: Files, image_size: int) -> str:
    """SHA-256 over the files as they lie on disk, and the size."""
    digest = hashlib.sha256(f"{image_size}".encode())
    for name in sorted(files):
        digest.update(sha256_of(files[name]))
    return digest.hexdigest()


def _read(file: Path) -> bytes:
    """The content of a file, unpacked.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return read(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error}); fetch it again") from None


def _cifar(files: Files, names: tuple[str, ...], labels: int) -> tuple[Array, Array]:
    """Images [N, 3, 32, 32] and the last label of records of labels, then red, green, blue."""
    record = labels + 3 * 32 * 32
    parts = []
    for name in names:
        content = np.frombuffer(_read(files[name]), dtype=np.uint8)
        if len(content) == 0 or len(content) % record:
            raise UserError(
                f"{files[name]}: holds {len(content):,} bytes, no multiple of a record's "
                f"{record:,}; it is truncated or damaged, fetch it again"
            )
        parts.append(content.reshape(-1, record))
    records = np.concatenate(parts)
    return records[:, labels:].reshape(-1, 3, 32, 32), records[:, labels - 1]


def _read_cifar10(files: Files) -> tuple[Array, Array, Array, Array]:
    train = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
    return (*_cifar(files, train, 1), *_cifar(files, ("test_batch.bin",), 1))


def _read_cifar100(files: Files) -> tuple[Array, Array, Array, Array]:
    return (*_cifar(files, ("train.bin",), 2), *_cifar(files, ("test.bin",), 2))


def _names_of_cifar100(files: Files) -> tuple[str, ...]:
    file = files["fine_label_names.txt"]
    names = tuple(_read(file).decode(errors="replace").split())
    if len(set(names)) != 100 or len(names) != 100:
        raise UserError(f"{file}: holds {len(names)} names and not 100; fetch it again")
    return names


def _read_idx_files(files: Files, classes: int = 10) -> tuple[Array, Array, Array, Array]:
    """Training and test files of MNIST's form, in the order in which they are named."""
    train_images, train_targets, test_images, test_targets = (
        read_idx(file, images="images" in name, classes=classes) for name, file in files.items()
    )
    return train_images[:, None], train_targets, test_images[:, None], test_targets


def _read_emnist(files: Files) -> tuple[Array, Array, Array, Array]:
    """EMNIST's images lie on their side."""
    train, train_targets, test, test_targets = _read_idx_files(files, len(_EMNIST))
    return train.swapaxes(2, 3), train_targets, test.swapaxes(2, 3), test_targets


def _read_svhn(files: Files) -> tuple[Array, Array, Array, Array]:
    """Of MATLAB's files, in which a zero is labelled 10."""
    from scipy.io import loadmat

    arrays: list[Array] = []
    for file in files.values():
        try:
            content = loadmat(io.BytesIO(read(file)), variable_names=("X", "y"))
            images, targets = content["X"], content["y"].ravel()
        except Exception as error:  # scipy reports what is broken in many ways
            raise UserError(f"{file}: is not SVHN's file ({error}); fetch it again") from None
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
            raise UserError(
                f"{file}: holds images {images.dtype} {list(images.shape)} and not uint8 "
                f"[32, 32, 3, N]; fetch it again"
            )
        if not np.isin(targets, range(1, 11)).all():
            raise UserError(f"{file}: holds a label that is not one of 1 to 10; fetch it again")
        arrays += [images.transpose(3, 2, 0, 1), (targets % 10).astype(np.uint8)]
    return arrays[0], arrays[1], arrays[2], arrays[3]


def _mnist_names(folder: str, train: str, test: str) -> tuple[str, ...]:
    return tuple(
        f"{folder}/{part}-{kind}-ubyte"
        for part in (train, test)
        for kind in ("images-idx3", "labels-idx1")
    )


def _fetch_archive(url: str, md5: str) -> Callable[[Any, str], object]:
    return lambda datasets, base: datasets.utils.download_and_extract_archive(url, base, md5=md5)


def _fetch_svhn(datasets: Any, base: str) -> None:
    for split in ("train", "test"):
        datasets.SVHN(base, split=split, download=True)


_FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_EMNIST = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")

SETS = {
    "cifar10": VisionSet(
        "CIFAR-10",
        tuple(
            f"cifar-10-batches-bin/{name}.bin"
            for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")
        ),
        10,
        _read_cifar10,
        lambda _: _CIFAR10,
        _fetch_archive(_CIFAR_10, "c32a1d4ab5d03f1284b67883e8d87530"),
    ),
    "cifar100": VisionSet(
        "CIFAR-100",
        tuple(
            f"cifar-100-binary/{name}" for name in ("train.bin", "test.bin", "fine_label_names.txt")
        ),
        10,
        _read_cifar100,
        _names_of_cifar100,
        _fetch_archive(_CIFAR_100, "03b5dce01913d631647c71ecec9e9cb8"),
    ),
    "fashion_mnist": VisionSet(
        "Fashion-MNIST",
        _mnist_names("FashionMNIST/raw", "train", "t10k"),
        6,
        _read_idx_files,
        lambda _: _FASHION,
        lambda datasets, base: datasets.FashionMNIST(base, download=True),
    ),
    "emnist": VisionSet(
        "EMNIST (balanced)",
        _mnist_names("EMNIST/raw", "emnist-balanced-train", "emnist-balanced-test"),
        6,
        _read_emnist,
        lambda _: _EMNIST,
        lambda datasets, base: datasets.EMNIST(base, split="balanced", download=True),
    ),
    "svhn": VisionSet(
        "SVHN",
        ("train_32x32.mat", "test_32x32.mat"),
        10,
        _read_svhn,
        lambda _: _DIGITS,
        _fetch_svhn,
    ),
}
