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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vitbench.config import Dataset
from vitbench.data import attributes
from vitbench.data.decode import Files, Watch
from vitbench.data.image_set import ImageSet
from vitbench.errors import UserError

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
_LEAST = 10


@dataclass(frozen=True)
class Listing:
    """Which images there are and what they show.

    Attributes:
        root: the folder.
        files: paths of the images, relative to it.
        targets: int64 [N, L]: class numbers (L = 1), or one 0/1 column per attribute.
        classes: of a folder of classes; empty with a CSV.
        labels: classes or attributes.
    """

    root: Path
    files: list[str]
    targets: NDArray[np.int64]
    classes: tuple[str, ...]
    labels: tuple[str, ...]


def listing(dataset: Dataset) -> Listing:
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
    listed = _attributes(root, tables[0], dataset) if tables else _classes(root, dataset)
    if len(listed.files) < _LEAST:
        raise UserError(
            f"{root}: holds {len(listed.files)} images; at least {_LEAST} are needed to train, "
            f"validate and test"
        )
    return listed


def fingerprint(listed: Listing, dataset: Dataset) -> str:
    """SHA-256 that changes with the files, the targets and the settings."""
    settings = (dataset.image_size, dataset.channels, listed.labels, dataset.damaged_share)
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(listed.targets.tobytes())
    for name in listed.files:
        path = listed.root / name
        status = path.stat() if path.is_file() else None
        known = (status.st_size, status.st_mtime_ns) if status else "missing"
        digest.update(f"{name} {known}\n".encode())
    return digest.hexdigest()


def load(listed: Listing, dataset: Dataset, folder: Path, watch: Watch | None = None) -> ImageSet:
    """Decode the images and cut them into splits.

    Raises:
        UserError: if too many images are broken; names some.
    """
    which = _split_of(listed)
    rows = {split: np.flatnonzero(which == split) for split in _SHARES}
    files = Files(
        place=listed.root,
        names={split: [listed.files[row] for row in rows[split]] for split in _SHARES},
        read=lambda name: (listed.root / name).read_bytes(),
        channels=dataset.channels or 3,
        crop=None,
        damaged_share=dataset.damaged_share,
    )
    kind = f"{len(listed.labels)} {'classes' if listed.classes else 'attributes'}"
    size = dataset.image_size
    return attributes.build(
        files,
        name=listed.root.name,
        size=size,
        folder=folder,
        targets={split: listed.targets[rows[split]] for split in _SHARES},
        landmarks=None,
        classes=listed.classes,
        labels=listed.labels,
        source=f"{listed.root.name} ({len(listed.files):,} images of {kind}, centre square resized "
        f"to {size}x{size})",
        watch=watch,
    )


def _classes(root: Path, dataset: Dataset) -> Listing:
    classes: list[str] = []
    files: list[str] = []
    targets: list[int] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        inside = _images_in(folder, root)
        if inside:
            files += inside
            targets += [len(classes)] * len(inside)
            classes.append(folder.name)
    if len(classes) < 2:
        raise UserError(
            f"{root}: holds {len(classes)} subfolders with images and no CSV; make one subfolder "
            f"per class (at least 2), or put a CSV `file,attribute,...` beside the images"
        )
    if dataset.labels is not None:
        raise UserError(
            f"dataset.labels: {root} has classes, not attributes; leave labels out (any class can "
            f"be learned against the rest by train.label)"
        )
    column = np.array(targets, dtype=np.int64)[:, None]
    return Listing(root, files, column, tuple(classes), tuple(classes))


def _attributes(root: Path, path: Path, dataset: Dataset) -> Listing:
    try:
        table = pd.read_csv(path, index_col=0)
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not a CSV file that can be read ({error})") from error
    if not len(table.columns):
        raise UserError(f"{path}: has no attribute; write `file,attribute,...` in its first line")
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise UserError(f"{path}: lists {twice[0]} twice; keep one line")
    values = table.to_numpy()
    allowed = np.isin(values, (0, 1)) | np.isin(values, (-1,))
    if not allowed.all():
        row, column = (int(part[0]) for part in np.nonzero(~allowed))
        raise UserError(
            f"{path}:{row + 2}: {table.columns[column]}={values[row, column]} is neither 1 (has "
            f"it) nor 0 or -1 (has not); correct the value"
        )
    names, columns = attributes.chosen_columns(dataset.labels, list(table.columns), path.name)
    targets = (values[:, columns] == 1).astype(np.int64)
    return Listing(root, [str(name) for name in table.index], targets, (), tuple(names))


def _images_in(folder: Path, root: Path) -> list[str]:
    paths = []
    for place, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith(_ENDINGS) and not name.startswith("."):
                paths.append((Path(place) / name).relative_to(root).as_posix())
    return sorted(paths)


def _split_of(listed: Listing) -> NDArray[np.str_]:
    """Split of every image: by rank of its hash among the images of its class.

    With attributes the first one stands for the class.
    """
    keys = np.array([hashlib.sha256(name.encode()).hexdigest() for name in listed.files])
    which = np.empty(len(keys), dtype="<U5")
    for value in np.unique(listed.targets[:, 0]):
        members = np.flatnonzero(listed.targets[:, 0] == value)
        order = members[np.argsort(keys[members])]
        # At least one each for validation and test, where there are as many images.
        held_out = max(1, round(_SHARES["val"] * len(order)))
        which[order] = "train"
        which[order[-2 * held_out : -held_out]] = "val"
        which[order[-held_out:]] = "test"
    return which
