"""MNIST from files: packed or not, whole or damaged."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from set_layouts import idx, write_mnist

from vitbench import data
from vitbench.config import Dataset
from vitbench.data.sets import mnist
from vitbench.errors import UserError

REAL = Path(os.environ.get("VITBENCH_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.mark.parametrize("packed", [True, False])
def test_files_are_read_packed_or_not(tmp_path: Path, packed: bool) -> None:
    """The last sixth of the training images validates; names and shapes as models expect."""
    images = mnist.load(write_mnist(tmp_path, packed=packed), 32)
    assert [len(images.train), len(images.val), len(images.test)] == [10, 2, 4]
    assert images.train.images.shape == (10, 1, 32, 32)
    assert images.val.targets[:, 0].tolist() == [0, 1]
    assert images.classes == tuple("0123456789")


def test_load_uses_the_cache_until_the_files_change(tmp_path: Path) -> None:
    """The cache is keyed by content: other files never give the images of before."""
    folder, cache = tmp_path / "data", tmp_path / "cache"
    files = write_mnist(folder, packed=False)
    first = data.load(Dataset(name="mnist"), folder, cache)
    again = data.load(Dataset(name="mnist"), folder, cache)
    assert isinstance(again.train.images, np.memmap)
    assert len(list(cache.glob("mnist-*"))) == 1
    content = bytearray(files["train_images"].read_bytes())
    content[-1] ^= 255
    files["train_images"].write_bytes(bytes(content))
    changed = data.load(Dataset(name="mnist"), folder, cache)
    assert changed.checksum != first.checksum == again.checksum


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-5], "truncated or damaged"),
        (lambda b: b"\x00\x00\x0d" + b[3:], "not an IDX file"),
        (lambda b: b"", "not an IDX file"),
        (lambda b: b[:7], "truncated or damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, damage: object, message: str) -> None:
    """The user must know which file to fetch again."""
    files = write_mnist(tmp_path, packed=False)
    path = files["test_images"]
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as caught:
        mnist.load(files, 32)
    assert str(path) in str(caught.value)


def test_a_torn_archive_is_named(tmp_path: Path) -> None:
    """A download that broke off."""
    files = write_mnist(tmp_path, packed=True)
    path = files["train_images"]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="damaged or truncated") as caught:
        mnist.load(files, 32)
    assert path.name in str(caught.value)


def test_images_and_labels_must_agree(tmp_path: Path) -> None:
    """Files of two downloads do not silently shift the labels."""
    files = write_mnist(tmp_path, packed=False)
    files["train_targets"].write_bytes(idx(np.arange(11) % 10))
    with pytest.raises(UserError, match="holds 12 images"):
        mnist.load(files, 32)


def test_without_files_or_network_the_sweep_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`offline: digits` falls back loudly; without it the message says where files belong."""
    monkeypatch.setattr(mnist, "download", lambda folder: None)
    with pytest.raises(UserError, match="MNIST/raw") as caught:
        data.resolve(Dataset(name="mnist"), tmp_path)
    assert "--data" in str(caught.value)
    found = data.resolve(Dataset(name="mnist", offline="digits"), tmp_path)
    assert found.dataset.name == "digits"
    assert found.notice is not None and "digits" in found.notice


@pytest.mark.skipif(mnist.find(REAL) is None, reason=f"no MNIST under {REAL}")
def test_real_mnist_has_its_official_split(tmp_path: Path) -> None:
    """50,000 + 10,000 + 10,000 images; the first labels are MNIST's own."""
    images = data.load(Dataset(name="mnist"), REAL, tmp_path)
    assert [len(images.train), len(images.val), len(images.test)] == [50_000, 10_000, 10_000]
    assert images.train.targets[:8, 0].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert images.test.targets[:4, 0].tolist() == [7, 2, 1, 0]
