"""Image sets of Hugging Face, from a folder built here: nothing is fetched or unpickled."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitbench.config import ConfigError, Dataset, load_sweep
from vitbench.data import load, resolve
from vitbench.errors import UserError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="datasets comes with an extra"
)
CLASSES = ["cat", "dog", "owl"]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and the library's cache in a folder of the test."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")


def picture(number: int) -> np.ndarray:
    """An image of one colour that tells its number, wider than high."""
    return np.full((8, 12, 3), (number % 250, 7, 90), dtype=np.uint8)


def build(folder: Path, features: dict[str, Any] | None = None, **rows: int) -> Path:
    """A data set of so many rows in each split, as parquet files with image content in them."""
    import datasets

    known = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=CLASSES)}
    folder.mkdir()
    first = 0
    for split, count in rows.items():
        numbers = range(first, first + count)
        content = {
            "picture": [Image.fromarray(picture(n)) for n in numbers],
            "kind": [n % 3 for n in numbers],
        }
        made = datasets.Dataset.from_dict(content, features=datasets.Features(features or known))
        made.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
        first += count
    return folder


def test_splits_images_and_classes_are_those_of_the_set(tmp_path: Path) -> None:
    """Each image with its class, resized; grey where that is asked for; names of the classes."""
    folder = build(tmp_path / "pets", train=20, validation=6, test=5)
    dataset = Dataset(name="huggingface", path=str(folder), image_size=8)
    images = load(dataset, None, tmp_path / "cache")
    assert images.name == "pets" and images.classes == tuple(CLASSES)
    first = 0
    for split, count in ((images.train, 20), (images.val, 6), (images.test, 5)):
        assert split.images.shape == (count, 3, 8, 8)
        numbers = np.arange(first, first + count)
        assert (split.images[:, 0] == numbers[:, None, None]).all()
        assert split.targets[:, 0].tolist() == (numbers % 3).tolist()
        first += count
    grey = load(dataset.model_copy(update={"channels": 1}), None, tmp_path / "cache")
    assert grey.channels == 1 and grey.checksum != images.checksum


def test_missing_splits_are_a_fixed_part_of_the_training_images(tmp_path: Path) -> None:
    """A tenth each, whole and without overlap, the same every time."""
    folder = build(tmp_path / "pets", train=50)
    sets = [
        load(Dataset(name="huggingface", path=str(folder), image_size=8), None, tmp_path / cache)
        for cache in ("one", "two")
    ]
    numbers = [
        set(split.images[:, 0, 0, 0].tolist())
        for split in (sets[0].train, sets[0].val, sets[0].test)
    ]
    assert [len(part) for part in numbers] == [40, 5, 5]
    assert set.union(*numbers) == set(range(50))
    assert sets[0].checksum == sets[1].checksum


def test_what_is_no_set_of_images_is_refused(tmp_path: Path) -> None:
    """No such set, no training images, no class: one message that names the place."""
    import datasets

    with pytest.raises(UserError, match=r"dataset.path=no/such: cannot be opened .*Hub"):
        load(Dataset(name="huggingface", path="no/such"), None, tmp_path / "cache")
    folder = build(tmp_path / "tests_only", test=5)
    with pytest.raises(UserError, match="has no split train; it has test"):
        load(Dataset(name="huggingface", path=str(folder)), None, tmp_path / "cache")
    plain = {"picture": datasets.Image(), "kind": datasets.Value("int64")}
    folder = build(tmp_path / "numbers", features=plain, train=5)
    with pytest.raises(UserError, match=r"has 0 columns of kind ClassLabel \(picture: Image"):
        load(Dataset(name="huggingface", path=str(folder)), None, tmp_path / "cache")


def test_a_path_is_a_folder_beside_the_sweep_file_or_of_the_hub(tmp_path: Path) -> None:
    """What is no folder there stays ORG/NAME; without a path there is a message with the line."""
    (tmp_path / "org").mkdir()
    build(tmp_path / "org" / "pets", train=5)
    file = tmp_path / "sweep.yaml"
    text = "name: x\ndataset: {name: huggingface, path: %s}\nsearch: {space: {lr: [0.1]}}\n"
    for given, used in (("org/pets", str(tmp_path / "org" / "pets")), ("org/none", "org/none")):
        file.write_text(text % given)
        assert load_sweep(file).dataset.path == used
        assert resolve(load_sweep(file).dataset, None).dataset.name == "huggingface"
    file.write_text(text.replace(", path: %s", ""))
    with pytest.raises(
        ConfigError, match="a data set of Hugging Face needs a path; add `path: ORG"
    ):
        load_sweep(file)
