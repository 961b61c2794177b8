"""CelebA's loader on files in CelebA's layout (drawn faces), and what is wrong with bad ones."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from celeba_layout import write_celeba_layout
from PIL import Image

from vitbench import data
from vitbench.config import Dataset
from vitbench.data.image_set import ImageSet
from vitbench.data.sets import celeba
from vitbench.data.sets.faces import faces
from vitbench.errors import UserError

COUNT = 40
LABELS = ["Smiling", "Eyeglasses"]
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with 40 pictures."""
    folder = tmp_path_factory.mktemp("data")
    write_celeba_layout(folder, COUNT, seed=3)
    return folder


@pytest.fixture
def damaged(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    shutil.copytree(written / "celeba", tmp_path / "data" / "celeba")
    return tmp_path / "data"


def load(folder: Path, cache: Path, **settings: object) -> ImageSet:
    dataset = Dataset.model_validate({"name": "celeba", "labels": LABELS, **settings})
    return data.load(data.resolve(dataset, folder).dataset, folder, cache)


def test_labels_landmarks_and_pixels_belong_together(written: Path, tmp_path: Path) -> None:
    """Against the faces as they were drawn: rows, columns, cropping and scaling."""
    images = load(written, tmp_path)
    drawn = faces.draw(COUNT, (178, 218), seed=3)
    columns = [faces.ATTRIBUTES.index(name) for name in LABELS]
    together = [getattr(images, name) for name in SPLITS]
    assert images.name == "celeba" and images.labels == tuple(LABELS) and images.classes == ()
    targets = np.concatenate([split.targets for split in together])
    assert (targets == drawn.attributes[:, columns]).all()
    marks = np.concatenate([split.landmarks for split in together])
    expected = (drawn.landmarks - [0, 20]) * (32 / 178)
    # The files hold whole pixels.
    assert np.abs(marks - expected).max() <= 32 / 178 + 1e-5
    pixels = np.concatenate([split.images for split in together]).astype(int)
    for image, whole in zip(pixels, drawn.images, strict=True):
        square = Image.fromarray(whole[:, 20:198].transpose(1, 2, 0))
        small = np.asarray(square.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(image - small).mean() < 3  # JPEG, and scaling while decoding


def test_torchvision_reads_the_same_files(written: Path, tmp_path: Path) -> None:
    """Partition, attributes and landmarks as torchvision's own data set parses them."""
    from vitbench.torchvision_import import torchvision

    class Unchecked(torchvision().datasets.CelebA):  # type: ignore[misc]
        def _check_integrity(self) -> bool:  # compares with the MD5 sums of the real files
            return True

    images = load(written, tmp_path)
    for ours, theirs in zip(SPLITS, ("train", "valid", "test"), strict=True):
        other = Unchecked(str(written), split=theirs, target_type=["attr", "landmarks"])
        split = getattr(images, ours)
        assert len(other) == len(split)
        columns = [other.attr_names.index(name) for name in LABELS]
        assert (other.attr[:, columns].numpy() == split.targets).all()
        marks = (other.landmarks_align.numpy().reshape(-1, 5, 2) - [0, 20]) * (32 / 178)
        assert np.allclose(marks, split.landmarks, atol=1e-4)


def test_the_zip_gives_what_the_folder_gives(damaged: Path, tmp_path: Path) -> None:
    """img_align_celeba.zip is read as it was downloaded."""
    from_folder = load(damaged, tmp_path / "a")
    root = damaged / "celeba"
    with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
        for path in sorted((root / "img_align_celeba").iterdir()):
            archive.write(path, f"img_align_celeba/{path.name}")
    shutil.rmtree(root / "img_align_celeba")
    from_zip = load(damaged, tmp_path / "b")
    assert from_zip.checksum == from_folder.checksum
    assert (from_zip.train.images == from_folder.train.images).all()


def test_the_papers_split(written: Path, tmp_path: Path) -> None:
    """200,000 of 202,599 train, in the files' order; the others are shared out."""
    images = load(written, tmp_path, split="paper")
    assert [len(getattr(images, name)) for name in SPLITS] == [38, 1, 1]
    official = load(written, tmp_path)
    assert (images.train.images[: len(official.train)] == official.train.images).all()
    which = celeba._split_of(np.zeros(202_599, dtype=np.int64), "paper")
    assert np.bincount(which).tolist() == [200_000, 1299, 1300]


def test_all_attributes_by_default(written: Path, tmp_path: Path) -> None:
    """Without `labels` every column of the list, in its order."""
    assert load(written, tmp_path, labels=None).labels == faces.ATTRIBUTES


def test_a_label_that_is_not_there(written: Path, tmp_path: Path) -> None:
    """The nearest name is offered."""
    with pytest.raises(UserError, match="no label 'Smilling'; did you mean 'Smiling'"):
        load(written, tmp_path, labels=["Smilling"])


def test_missing_pictures_are_named(damaged: Path, tmp_path: Path) -> None:
    """One of 40 is more than the share that is borne; with leave it is left out, and said."""
    (damaged / "celeba" / "img_align_celeba" / "000007.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 40 .*000007\.jpg: missing"):
        load(damaged, tmp_path / "cache")
    images = load(damaged, tmp_path / "cache", damaged_share=0.05)
    assert sum(len(getattr(images, name)) for name in SPLITS) == COUNT - 1
    assert "000007.jpg: missing" in images.source


@pytest.mark.parametrize(
    ("name", "before", "after", "said"),
    [
        ("list_attr_celeba.txt", "40\n", "50\n", "promises 50 images and 40 follow"),
        ("list_attr_celeba.txt", "40\n", "", "holds 9 names of columns|line 3"),
        ("list_eval_partition.txt", "000004.jpg", "900004.jpg", "has no line for 000004.jpg"),
    ],
)
def test_damaged_lists(
    damaged: Path, tmp_path: Path, name: str, before: str, after: str, said: str
) -> None:
    """The list, what it promises and what it holds."""
    path = damaged / "celeba" / name
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(UserError, match=said):
        load(damaged, tmp_path / "cache")


def test_a_value_that_is_no_attribute(damaged: Path, tmp_path: Path) -> None:
    """The line of the list that holds it."""
    path = damaged / "celeba" / "list_attr_celeba.txt"
    lines = path.read_text().splitlines()
    name, _, *rest = lines[4].split()
    lines[4] = " ".join([name, "7", *rest])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="line 5 holds a value that is none of -1, 1"):
        load(damaged, tmp_path / "cache")


def test_without_celeba_the_substitute_says_its_name(tmp_path: Path) -> None:
    """A notice, `faces` in the data set's name, and nothing of CelebA in the source."""
    dataset = Dataset(
        name="celeba", offline="faces", labels=LABELS, split="paper", count=100, image_size=16
    )
    resolved = data.resolve(dataset, tmp_path / "nothing")
    assert resolved.notice is not None and "faces" in resolved.notice
    assert resolved.dataset.split is None
    images = data.load(resolved.dataset, tmp_path / "nothing", tmp_path / "cache")
    assert images.name == "faces"
    assert "CelebA" not in images.source
    assert images.label_noise == faces.NOISE
    assert [len(getattr(images, name)) for name in SPLITS] == [80, 10, 10]
    with pytest.raises(UserError, match="write `offline: faces`"):
        data.resolve(dataset.model_copy(update={"offline": None}), tmp_path / "nothing")
