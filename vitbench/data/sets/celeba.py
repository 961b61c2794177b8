"""CelebA from the files that torchvision's data set uses.

    <data>/celeba/img_align_celeba/000001.jpg ...   or img_align_celeba.zip
    <data>/celeba/list_attr_celeba.txt
    <data>/celeba/list_eval_partition.txt
    <data>/celeba/list_landmarks_align_celeba.txt

The aligned images are 178x218 pixels; the centre 178x178 are kept and resized. Source: Liu et al.
2015 (arXiv:1411.7766).
"""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vitbench.config import Dataset
from vitbench.data import files
from vitbench.data.decode import MOST_BYTES, Pictures, chosen_columns
from vitbench.data.image_set import SPLITS
from vitbench.errors import UserError

WIDTH, HEIGHT = 178, 218
_ATTRIBUTES = "list_attr_celeba.txt"
_PARTITION = "list_eval_partition.txt"
_LANDMARKS = "list_landmarks_align_celeba.txt"
_IMAGES = "img_align_celeba"
# The paper trains on 200,000 of the 202,599 images; the others validate and test here, half each.
_PAPER_SHARE = (200_000, 202_599)


def find(data_dir: Path) -> Path | None:
    """Folder or zip file of CelebA's images in `<data_dir>/celeba`; None if any file is missing."""
    folder = data_dir / "celeba"
    if not all(os.path.isfile(folder / name) for name in (_ATTRIBUTES, _PARTITION, _LANDMARKS)):
        return None
    return next((p for p in (folder / _IMAGES, folder / f"{_IMAGES}.zip") if p.exists()), None)


def fingerprint(images: Path, dataset: Dataset) -> str:
    """SHA-256 that changes with the files and the settings, without reading the images."""
    split = dataset.split or "official"
    settings = (dataset.image_size, dataset.labels, split, dataset.damaged_share)
    digest = hashlib.sha256(repr(settings).encode())
    for name in (_ATTRIBUTES, _PARTITION, _LANDMARKS):
        digest.update((images.parent / name).read_bytes())
    if images.is_dir():
        for path in sorted(images.iterdir()):
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    else:
        with _open_zip(images) as archive:
            for entry in archive.infolist():
                digest.update(f"{entry.filename} {entry.CRC} {entry.file_size}\n".encode())
    return digest.hexdigest()


def pictures(images: Path, dataset: Dataset) -> Pictures:
    """Read the lists.

    Raises:
        UserError: naming the list and line that is damaged, or the label that is not there.
    """
    folder, size = images.parent, dataset.image_size
    table = _read_list(folder / _ATTRIBUTES, allowed=(-1, 1))
    labels, columns = chosen_columns(dataset.labels, list(table.columns), "CelebA")
    marks = _read_list(folder / _LANDMARKS, columns=10)
    partition = _read_list(folder / _PARTITION, header=False, allowed=(0, 1, 2))
    for other, name in ((marks, _LANDMARKS), (partition, _PARTITION)):
        missing = table.index.difference(other.index)
        if len(missing):
            raise UserError(
                f"{folder / name}: has no line for {missing[0]} and {len(missing) - 1} other "
                f"images of {_ATTRIBUTES}; fetch both again"
            )
    values = table.to_numpy()
    points = marks.loc[table.index].to_numpy(dtype=np.float32).reshape(-1, 5, 2)
    corner = np.array([0, (HEIGHT - WIDTH) // 2], dtype=np.float32)  # of the square that is kept
    which = _split_of(partition.loc[table.index, "partition"].to_numpy(), dataset.split)
    kind = "the paper's 200,000 for training" if dataset.split == "paper" else "official partition"
    return Pictures(
        name="celeba",
        place=images,
        files=list(table.index),
        split=np.array(SPLITS)[which],
        targets=(values[:, columns] == 1).astype(np.int64),
        labels=labels,
        landmarks=np.asarray((points - corner) * (size / WIDTH), dtype=np.float32),
        read=_reader(images),
        crop=WIDTH,
        source=f"CelebA ({len(table):,} images, {kind}, centre {WIDTH}x{WIDTH} pixels resized to "
        f"{size}x{size})",
    )


def _split_of(partition: NDArray[np.int64], split: str | None) -> NDArray[np.int64]:
    """0, 1 or 2 (train, val, test) of every image."""
    if split != "paper":
        return partition
    # Small sets, as tests have them, keep one image each to validate and to test.
    first = min(len(partition) * _PAPER_SHARE[0] // _PAPER_SHARE[1], len(partition) - 2)
    which = np.zeros(len(partition), dtype=np.int64)
    which[first:] = 1
    which[first + (len(partition) - first) // 2 :] = 2
    return which


def _read_list(
    path: Path,
    *,
    header: bool = True,
    columns: int | None = None,
    allowed: Sequence[int] | None = None,
) -> pd.DataFrame:
    """One of CelebA's lists, indexed by file name.

    With a header the first line holds the number of images, the second the names of the columns.

    Raises:
        UserError: if it has another form, other columns or values, or lists an image twice; names
            the line.
    """
    try:
        lines = files.read(path).decode().splitlines()
        names = lines[1].split() if header else ["partition"]
    except (OSError, ValueError, IndexError) as error:
        raise UserError(
            f"{path}: is not one of CelebA's lists ({error}); fetch it again"
        ) from error
    if len(names) != (columns or len(names)) or len(set(names)) != len(names):
        raise UserError(
            f"{path}:2: holds {len(names)} names of columns, {len(set(names))} of them different"
            f"{f'; {columns} belong there' if columns else ''}; fetch it again"
        )
    rows: dict[str, list[int]] = {}
    for number, line in enumerate(lines[2 if header else 0 :], 3 if header else 1):
        name, *texts = line.split() or [""]
        try:
            values = [int(text) for text in texts]
        except ValueError:
            values = []
        if not name or len(values) != len(names):
            wrong = f"is not a file's name and {len(names)} whole numbers"
        elif name in rows:
            wrong = f"lists {name} twice"
        elif allowed and not set(values) <= set(allowed):
            wrong = f"holds a value that is none of {', '.join(map(str, allowed))}"
        else:
            rows[name] = values
            continue
        raise UserError(f"{path}: line {number} {wrong}; fetch the file again")
    if header and lines[0].strip() != str(len(rows)):
        raise UserError(
            f"{path}: its first line promises {lines[0].strip()[:20]} images and {len(rows):,} "
            f"follow; it is truncated or damaged, fetch it again"
        )
    array = np.array(list(rows.values()), dtype=np.int64).reshape(len(rows), len(names))
    return pd.DataFrame(array, index=pd.Index(list(rows), dtype=object), columns=names)


def _reader(images: Path) -> Callable[[str], bytes]:
    """Content of an image by name, from the folder or the zip file; for any thread."""
    if images.is_dir():
        return lambda name: files.read(images / name, MOST_BYTES)
    local = threading.local()  # a ZipFile seeks, so threads cannot share one

    def read(name: str) -> bytes:
        if not hasattr(local, "archive"):
            local.archive = _open_zip(images)
        entry = local.archive.getinfo(f"{_IMAGES}/{name}")
        if entry.file_size > MOST_BYTES:
            raise ValueError(f"holds more than {MOST_BYTES:,} bytes")
        content: bytes = local.archive.read(entry)
        return content

    return read


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        if not path.is_file():
            raise OSError("is no plain file")
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: cannot be opened ({error}); fetch it again") from error
