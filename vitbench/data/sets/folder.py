"""A user's own images: one subfolder per class, or images and one CSV of attributes.

    photos/cat/1.jpg, photos/dog/7.png ...
    photos/any/where/1.jpg ... and photos/labels.csv: `file,Smiling,Hat` / `any/where/1.jpg,1,0`

Images are sorted by a hash of their path within each class and cut into 80 % training, 10 %
validation and 10 % test images: the same on every machine, and nearly the same after a few images
more.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vitbench.config import Dataset
from vitbench.data import files as plain
from vitbench.data.decode import MOST_BYTES, Pictures, chosen_columns
from vitbench.errors import UserError
from vitbench.words import printable

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_HELD_OUT = 0.1  # share that validates, and share that tests
_LEAST = 10
_VALUES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": 0, "-1.0": 0}  # of attributes in a CSV

_Listed = tuple[list[str], NDArray[np.int64], list[str]]  # files, targets, classes or attributes


def pictures(dataset: Dataset) -> Pictures:
    """Look through the folder.

    Raises:
        UserError: if there is no such folder, or it holds neither classes nor one CSV, or the CSV
            does not fit the images; names file and line.
    """
    named = f"dataset.path={printable(str(dataset.path))[:200]}"
    try:
        root = Path(str(dataset.path)).expanduser().resolve()
        there = root.is_dir()
    except (RuntimeError, ValueError, OSError) as error:  # a circle of links, nobody's home ...
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{named}: {reason}; check the path") from None
    if not there:
        raise UserError(f"{named}: there is no such folder; check the path")
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
        read=lambda name: plain.read(root / name, MOST_BYTES),
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
        status = path.stat() if os.path.isfile(path) else None
        known = (status.st_size, status.st_mtime_ns) if status else "missing"
        digest.update(os.fsencode(f"{name} {known}\n"))
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
    for name in by_class:
        if not name.isprintable():
            raise UserError(
                f"{root}: the folder {printable(name)} names a class with bytes that are not UTF-8 "
                f"or cannot be printed; rename it"
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
        reader = csv.reader(io.StringIO(plain.read(path).decode("utf-8-sig")), strict=True)
        rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: is not a CSV file that can be read ({error})") from error
    (_, header), *lines = rows or [(1, [""])]
    names = [name.strip() for name in header[1:]]
    if not names:
        raise UserError(f"{path}: has no attribute; write `file,attribute,...` in its first line")
    for column, name in enumerate(names, 2):
        if not name or name in _VALUES or not name.isprintable():
            raise UserError(
                f"{path}:1: column {column} is called {name!r}, which is no attribute's name; "
                f"write `file,attribute,...` in the first line"
            )
        if names.count(name) > 1:
            raise UserError(f"{path}:1: two columns are called {name}; rename or remove one")
    first: dict[str, int] = {}
    for line, (file, *values) in lines:
        if len(values) != len(names):
            raise UserError(
                f"{path}:{line}: has {len(values)} values, and the first line {len(names)} "
                f"attributes; correct the line"
            )
        if not file or PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
            raise UserError(
                f"{path}:{line}: {printable(file)!r} is no path of an image in this folder; write "
                f"paths that begin here, without `..`"
            )
        if first.setdefault(file, line) != line:
            raise UserError(
                f"{path}:{line}: lists {printable(file)} twice (see line {first[file]}); keep one "
                f"line"
            )
        for name, value in zip(names, values, strict=True):
            if value.strip() not in _VALUES:
                raise UserError(
                    f"{path}:{line}: {name}={printable(value[:100])} is neither 1 (has it) nor 0 "
                    f"or -1 (has not); correct the value"
                )
    chosen, columns = chosen_columns(dataset.labels, names, path.name)
    has = [[_VALUES[row[1 + column].strip()] for column in columns] for _, row in lines]
    return list(first), np.array(has, dtype=np.int64).reshape(len(lines), len(columns)), chosen


def _split_of(files: list[str], targets: NDArray[np.int64]) -> NDArray[np.str_]:
    """Split of every image: by rank of its hash among the images of its class.

    With attributes the first one stands for the class.
    """
    keys = np.array([hashlib.sha256(os.fsencode(name)).hexdigest() for name in files])
    which = np.full(len(keys), "train")
    for value in np.unique(targets[:, 0]):
        members = np.flatnonzero(targets[:, 0] == value)
        order = members[np.argsort(keys[members])]
        # At least one each for validation and test, where there are as many images.
        held_out = max(1, round(_HELD_OUT * len(order)))
        which[order[-2 * held_out : -held_out]] = "val"
        which[order[-held_out:]] = "test"
    return which
