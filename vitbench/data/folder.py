"""A user's own images: one subfolder per class, or images and one CSV of attributes.

    photos/cat/1.jpg, photos/dog/7.png ...
    photos/any/where/1.jpg ... and photos/labels.csv: `file,Smiling,Hat` / `any/where/1.jpg,1,0`

Images are sorted by a hash of their path within each class and cut into 80 % training, 10 %
validation and 10 % test images: the same on every machine, and nearly the same after a few images
more.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vitbench.config import Dataset
from vitbench.data.decode import Pictures, chosen_columns
from vitbench.errors import UserError

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_HELD_OUT = 0.1  # share that validates, and share that tests
_LEAST = 10

_Listed = tuple[list[str], NDArray[np.int64], list[str]]  # files, targets, classes or attributes


def pictures(dataset: Dataset) -> Pictures:
    """Look through the folder.

    Raises:
        UserError: if there is no such folder, or it holds neither classes nor one CSV, or the CSV
            does not fit the images; names file and line.
    """
    root = Path(str(dataset.path)).expanduser().resolve()
    if not root.is_dir():
        raise UserError(f"dataset.path={dataset.path}: there is no such folder; check the path")
    tables = sorted(root.glob("*.csv"))
    if len(tables) > 1:
        raise UserError(
            f"{root}: holds {len(tables)} CSV files ({', '.join(p.name for p in tables[:3])}); "
            f"leave the one that lists the attributes"
        )
    files, targets, labels = _attributes(tables[0], dataset) if tables else _classes(root, dataset)
    if len(files) < _LEAST:
        raise UserError(
            f"{root}: holds {len(files)} images; at least {_LEAST} are needed to train, "
            f"validate and test"
        )
    kind = f"{len(labels)} {'attributes' if tables else 'classes'}"
    size = dataset.image_size
    return Pictures(
        name=root.name,
        place=root,
        files=files,
        split=_split_of(files, targets),
        targets=targets,
        labels=labels,
        classes=() if tables else labels,
        read=lambda name: (root / name).read_bytes(),
        channels=dataset.channels or 3,
        source=f"{root.name} ({len(files):,} images of {kind}, centre square resized "
        f"to {size}x{size})",
    )


def fingerprint(listed: Pictures, dataset: Dataset) -> str:
    """SHA-256 that changes with the files, the targets and the settings."""
    settings = (dataset.image_size, dataset.channels, tuple(listed.labels), dataset.damaged_share)
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(listed.targets.tobytes())
    for name in listed.files:
        path = listed.place / name
        status = path.stat() if path.is_file() else None
        known = (status.st_size, status.st_mtime_ns) if status else "missing"
        digest.update(f"{name} {known}\n".encode())
    return digest.hexdigest()


def _classes(root: Path, dataset: Dataset) -> _Listed:
    by_class: dict[str, list[str]] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        inside = sorted(
            (Path(place) / name).relative_to(root).as_posix()
            for place, _, names in os.walk(folder)
            for name in names
            if name.lower().endswith(_ENDINGS) and not name.startswith(".")
        )
        if inside:
            by_class[folder.name] = inside
    if len(by_class) < 2:
        raise UserError(
            f"{root}: holds {len(by_class)} subfolders with images and no CSV; make one subfolder "
            f"per class (at least 2), or put a CSV `file,attribute,...` beside the images"
        )
    if dataset.labels is not None:
        raise UserError(
            f"dataset.labels: {root} has classes, not attributes; leave labels out (any class can "
            f"be learned against the rest by train.label)"
        )
    files = [name for inside in by_class.values() for name in inside]
    targets = np.repeat(np.arange(len(by_class)), [len(inside) for inside in by_class.values()])
    return files, targets[:, None], list(by_class)


def _attributes(path: Path, dataset: Dataset) -> _Listed:
    try:
        table = pd.read_csv(path, index_col=0)
    except ValueError as error:  # pandas' own errors and those of the encoding, too
        raise UserError(f"{path}: is not a CSV file that can be read ({error})") from error
    if not len(table.columns):
        raise UserError(f"{path}: has no attribute; write `file,attribute,...` in its first line")
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise UserError(f"{path}: lists {twice[0]} twice; keep one line")
    values = table.to_numpy()
    allowed = np.isin(values, (-1, 0, 1))
    if not allowed.all():
        row, column = (int(part[0]) for part in np.nonzero(~allowed))
        raise UserError(
            f"{path}:{row + 2}: {table.columns[column]}={values[row, column]} is neither 1 (has "
            f"it) nor 0 or -1 (has not); correct the value"
        )
    names, columns = chosen_columns(dataset.labels, list(table.columns), path.name)
    return list(map(str, table.index)), (values[:, columns] == 1).astype(np.int64), names


def _split_of(files: list[str], targets: NDArray[np.int64]) -> NDArray[np.str_]:
    """Split of every image: by rank of its hash among the images of its class.

    With attributes the first one stands for the class.
    """
    keys = np.array([hashlib.sha256(name.encode()).hexdigest() for name in files])
    which = np.full(len(keys), "train")
    for value in np.unique(targets[:, 0]):
        members = np.flatnonzero(targets[:, 0] == value)
        order = members[np.argsort(keys[members])]
        # At least one each for validation and test, where there are as many images.
        held_out = max(1, round(_HELD_OUT * len(order)))
        which[order[-2 * held_out : -held_out]] = "val"
        which[order[-held_out:]] = "test"
    return which
