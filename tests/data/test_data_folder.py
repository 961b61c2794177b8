"""A user's own images: classes by subfolder, attributes by CSV, broken files, interrupted work."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitbench import data
from vitbench.config import Dataset
from vitbench.data import decode
from vitbench.data.image_set import ImageSet
from vitbench.errors import UserError


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def classes(root: Path, each: int = 20) -> Path:
    """Red and blue pictures in two subfolders, one of them nested."""
    for n in range(each):
        picture(root / "blue" / f"{n}.png", (0, 0, 200 + n))
        picture(root / "red" / "deeper" / f"{n}.jpg", (200 + n, 0, 0))
    return root


def load(root: Path, cache: Path, **settings: object) -> ImageSet:
    dataset = Dataset.model_validate(
        {"name": "folder", "path": str(root), "image_size": 8, **settings}
    )
    return data.load(dataset, None, cache)


def test_subfolders_are_classes(tmp_path: Path) -> None:
    """Every image is in one split, with the class of its folder; shares are 80, 10 and 10 %."""
    images = load(classes(tmp_path / "photos"), tmp_path / "cache")
    assert images.name == "photos"
    assert images.classes == ("blue", "red")
    assert images.channels == 3
    sizes = {name: np.bincount(getattr(images, name).targets[:, 0]).tolist() for name in SPLITS}
    assert sizes == {"train": [16, 16], "val": [2, 2], "test": [2, 2]}
    for name in SPLITS:
        split = getattr(images, name)
        blue = split.images[:, 2].mean(axis=(1, 2)) > split.images[:, 0].mean(axis=(1, 2))
        assert (blue == (split.targets[:, 0] == 0)).all()


SPLITS = ("train", "val", "test")


def test_the_split_is_of_the_names_alone(tmp_path: Path) -> None:
    """Copies elsewhere are split alike, and most images stay where they were after a new one."""

    def training(root: Path, cache: str) -> set[int]:
        images = load(root, tmp_path / cache).train.images
        return {int(image.max()) for image in images if image[2].mean() > image[0].mean()}

    first = training(classes(tmp_path / "one"), "a")
    assert training(classes(tmp_path / "two"), "b") == first
    more = classes(tmp_path / "three")
    picture(more / "blue" / "new.png", (0, 0, 100))
    assert len(first & training(more, "c")) >= len(first) - 1


def test_a_csv_lists_attributes(tmp_path: Path) -> None:
    """Columns are labels, 0 and -1 are no; labels of the sweep choose columns and their order."""
    root = tmp_path / "photos"
    lines = ["file,Red,Dark,Odd"]
    for n in range(30):
        red, dark = n % 2, n % 3 == 0
        level = 80 if dark else 220
        picture(root / "all" / f"{n}.png", (level, 0, 0) if red else (0, 0, level))
        lines.append(f"all/{n}.png,{red},{1 if dark else -1},0")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    images = load(root, tmp_path / "cache", labels=["Dark", "Red"])
    assert images.classes == ()
    assert images.labels == ("Dark", "Red")
    for name in SPLITS:
        split = getattr(images, name)
        assert (split.targets[:, 0] == (split.images.max(axis=(1, 2, 3)) < 150)).all()
        assert (split.targets[:, 1] == (split.images[:, 0].mean(axis=(1, 2)) > 10)).all()
    assert sum(len(getattr(images, name)) for name in SPLITS) == 30


def test_grey_on_request(tmp_path: Path) -> None:
    """One channel, the luma of the colours."""
    images = load(classes(tmp_path / "photos"), tmp_path / "cache", channels=1)
    assert images.channels == 1
    assert abs(int(images.train.images[images.train.targets[:, 0] == 1].max()) - 219 * 0.299) < 2


def test_bad_files_are_named_and_counted(tmp_path: Path) -> None:
    """Broken images above the share that is allowed are an error; below it they are left out."""
    root = classes(tmp_path / "photos")
    (root / "red" / "deeper" / "3.jpg").write_bytes(b"no picture")
    content = (root / "blue" / "5.png").read_bytes()
    (root / "blue" / "5.png").write_bytes(content[:40])
    with pytest.raises(UserError) as error:
        load(root, tmp_path / "cache")
    message = str(error.value)
    assert "2 of 40 image files are missing or broken" in message
    assert "red/deeper/3.jpg" in message and "blue/5.png" in message
    assert "damaged_share=0.001" in message
    images = load(root, tmp_path / "cache", damaged_share=0.1)
    assert sum(len(getattr(images, name)) for name in SPLITS) == 38
    assert "2 image files left out" in images.source
    for name in SPLITS:  # targets went with their images
        split = getattr(images, name)
        blue = split.images[:, 2].mean(axis=(1, 2)) > split.images[:, 0].mean(axis=(1, 2))
        assert (blue == (split.targets[:, 0] == 0)).all()


def test_a_missing_file_of_the_csv_is_named(tmp_path: Path) -> None:
    """The list and the images disagree: which one."""
    root = tmp_path / "photos"
    for n in range(12):
        picture(root / f"{n}.png", (n, 0, 0))
    rows = "".join(f"{n}.png,{n % 2}\n" for n in range(13))
    (root / "labels.csv").write_text(f"file,Odd\n{rows}")
    with pytest.raises(UserError, match=r"12\.png: missing"):
        load(root, tmp_path / "cache")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("file,Odd\n0.png,1\n0.png,0\n", "lists 0.png twice"),
        ("file,Odd\n0.png,yes\n", r"labels.csv:2: Odd=yes is neither 1"),
        ("file\n0.png\n", "has no attribute"),
        ("file,Odd\n0.png,1\n", "at least 10 are needed"),
    ],
)
def test_a_csv_that_cannot_be_used(tmp_path: Path, content: str, said: str) -> None:
    """File, line, value and rule, before anything is decoded."""
    picture(tmp_path / "photos" / "0.png", (0, 0, 0))
    (tmp_path / "photos" / "labels.csv").write_text(content)
    with pytest.raises(UserError, match=said):
        load(tmp_path / "photos", tmp_path / "cache")


def test_folders_that_hold_nothing_to_learn(tmp_path: Path) -> None:
    """No folder, one class, a label that a CSV does not have."""
    with pytest.raises(UserError, match="there is no such folder"):
        load(tmp_path / "nowhere", tmp_path / "cache")
    for n in range(12):
        picture(tmp_path / "one" / "cat" / f"{n}.png", (n, 0, 0))
    with pytest.raises(UserError, match="one subfolder per class"):
        load(tmp_path / "one", tmp_path / "cache")
    with pytest.raises(UserError, match="did you mean 'Odd'"):
        (tmp_path / "one" / "labels.csv").write_text("file,Odd\ncat/0.png,1\n")
        load(tmp_path / "one", tmp_path / "cache", labels=["Od"])


def test_interrupted_decoding_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was decoded before Ctrl-C is not decoded again, and the result is the same."""
    monkeypatch.setattr(decode, "_CHUNK", 4)
    root = classes(tmp_path / "photos")
    expected = load(root, tmp_path / "calm")

    def interrupt(what: str, done: int, total: int) -> None:
        if done >= 12:
            raise KeyboardInterrupt

    dataset = Dataset(name="folder", path=str(root), image_size=8)
    with pytest.raises(KeyboardInterrupt):
        data.load(dataset, None, tmp_path / "cache", watch=interrupt)
    starts: list[int] = []
    images = data.load(
        dataset, None, tmp_path / "cache", watch=lambda what, done, total: starts.append(done)
    )
    assert starts[0] >= 12, "it began again from nothing"
    assert starts[-1] == 40
    assert images.checksum == expected.checksum
    assert (images.train.images == expected.train.images).all()
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.name.endswith("partial")] == []


def test_a_disk_without_room_for_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room is taken before anything is decoded: writing to a full disk would end the process."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    photos, cache = classes(tmp_path / "photos"), tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(UserError, match=r"train_images\.npy: No space left .*VITBENCH_CACHE"):
            load(photos, cache)
    assert len(load(photos, cache).train) == 32


def test_the_cache_notices_a_changed_image(tmp_path: Path) -> None:
    """Another picture under the same name is decoded anew."""
    root = classes(tmp_path / "photos")
    before = load(root, tmp_path / "cache").checksum
    assert load(root, tmp_path / "cache").checksum == before
    picture(root / "blue" / "0.png", (1, 2, 3), size=(50, 50))
    assert load(root, tmp_path / "cache").checksum != before


@pytest.mark.parametrize("scale", [1, 6])
def test_a_decoded_image_is_pillows(scale: int) -> None:
    """Centre square and antialiased resize; a JPEG scaled while decoding differs by little."""
    side = 32 * scale
    y, x = np.mgrid[: side + 8, :side].astype(np.float64) / side
    waves = np.stack([x, y, 0.5 + 0.5 * np.sin(7 * x) * np.cos(5 * y)], axis=-1)
    picture = Image.fromarray((255 * waves.clip(0, 1)).astype(np.uint8))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    got, several = decode.decode(file.getvalue(), 32, 3, None)
    whole = Image.open(io.BytesIO(file.getvalue())).crop((0, 4, side, 4 + side))
    expected = np.asarray(whole.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert got.shape == (3, 32, 32) and not several
    assert np.abs(got.astype(int) - expected).mean() < 2.0
