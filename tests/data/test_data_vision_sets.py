"""CIFAR, Fashion-MNIST, EMNIST and SVHN from files in their usual layouts, whole or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from set_layouts import TEST, TRAIN, WRITE, labels

from vitbench import data
from vitbench.config import Dataset
from vitbench.data.sets import vision_sets
from vitbench.errors import UserError


@pytest.mark.parametrize("name", WRITE)
def test_a_set_is_found_and_split(name: str, tmp_path: Path) -> None:
    """Official test images, the training images' end for validation, upright, labels from 0."""
    write, classes, channels = WRITE[name]
    write(tmp_path / "data")
    size = 28 if channels == 1 else 32
    dataset = Dataset.model_validate({"name": name, "image_size": size})
    resolved = data.resolve(dataset, tmp_path / "data", download=False)
    images = data.load(resolved.dataset, tmp_path / "data", tmp_path / "cache")
    held_out = TRAIN // vision_sets.SETS[name].held_out
    assert [len(images.train), len(images.val), len(images.test)] == [
        TRAIN - held_out,
        held_out,
        TEST,
    ]
    assert images.channels == channels and images.outputs == classes == len(set(images.classes))
    assert images.train.images[5, 0, 0, :2].tolist() == [5, 200]
    assert images.val.images[0, 0, 0, 0] == TRAIN - held_out
    expected = labels(TRAIN, classes).astype(int).tolist()
    assert images.train.targets[:, 0].tolist() == expected[: TRAIN - held_out]
    assert images.test.targets[:, 0].tolist() == labels(TEST, classes).astype(int).tolist()


def test_missing_files_are_named_and_nothing_is_fetched_in_a_dry_run(tmp_path: Path) -> None:
    """What to do stands in the message."""
    dataset = Dataset(name="cifar10")
    with pytest.raises(UserError, match=r"CIFAR-10 is not in .*data_batch_1\.bin"):
        data.resolve(dataset, tmp_path, download=False)


@pytest.mark.parametrize("name", ["cifar10", "svhn", "fashion_mnist"])
def test_damaged_files_are_named(name: str, tmp_path: Path) -> None:
    """Cut off in the middle: refused with the file's name, and nothing is cached."""
    WRITE[name][0](tmp_path / "data")
    found = vision_sets.SETS[name].find(tmp_path / "data")
    assert found is not None
    file = next(iter(found.values()))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=file.name.replace(".", r"\.")):
        data.load(Dataset.model_validate({"name": name}), tmp_path / "data", tmp_path / "cache")
