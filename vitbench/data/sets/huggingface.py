"""Images of a Hugging Face data set: `dataset: {name: huggingface, path: ORG/NAME}`.

The library `datasets` reads it, from its cache, the Hub or a folder of this machine; it runs no
code of a data set, and Pillow decodes the images. A set without a validation or a test split gives
a tenth of its training images for each, drawn by a fixed seed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitbench.config import Dataset
from vitbench.data.decode import Pictures
from vitbench.errors import UserError

_NAMES = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}
_HASHED = 256  # images whose content names the set in the cache; all are hashed once decoded
_HELD_OUT = 10  # one image of so many, where a split is missing


def pictures(dataset: Dataset) -> Pictures:
    """Open the data set, downloading it if need be (not where $HF_HUB_OFFLINE is set).

    Raises:
        UserError: if the library is missing, the set cannot be opened, or it is none of images
            that have one class each.
    """
    path = str(dataset.path)
    place = f"dataset.path={path}"
    opened = _open(path)
    parts = {
        split: next((opened[name] for name in names if name in opened), None)
        for split, names in _NAMES.items()
    }
    train = parts["train"]
    if train is None:
        raise UserError(f"{place}: has no split train; it has {', '.join(map(str, opened))}")
    image, target, classes = _columns(train.features, place)
    given = {split: part for split, part in parts.items() if part is not None}
    read_of = [_targets(part, target, len(classes), place) for part in given.values()]
    targets = np.concatenate(read_of)
    which = np.concatenate([np.full(len(part), split) for split, part in given.items()])
    _hold_out(which, [split for split, part in parts.items() if part is None])
    raw = {split: _undecoded(part, image) for split, part in given.items()}

    def read(name: str) -> bytes:
        split, _, row = name.partition("/")
        content = raw[split][int(row)][image]
        return content["bytes"] or Path(content["path"]).read_bytes()

    name, size = Path(path).name, dataset.image_size
    shown = name if Path(path).is_absolute() else path  # of the Hub, with its owner
    return Pictures(
        name=name,
        place=Path(path),
        files=[f"{split}/{row}" for split, part in given.items() for row in range(len(part))],
        split=which,
        targets=targets[:, None],
        labels=classes,
        classes=classes,
        read=read,
        channels=dataset.channels or 3,
        source=f"{shown} of Hugging Face ({len(which):,} images of {len(classes)} classes, centre "
        f"square resized to {size}x{size})",
    )


def fingerprint(listed: Pictures, dataset: Dataset) -> str:
    """SHA-256 that changes with the targets, the settings and some of the images."""
    settings = (listed.source, dataset.channels, tuple(listed.labels), dataset.damaged_share)
    digest = hashlib.sha256(repr(settings).encode())
    digest.update("".join(listed.split).encode())
    digest.update(listed.targets.tobytes())
    for name in listed.files[:: max(1, len(listed.files) // _HASHED)]:
        digest.update(listed.read(name))
    return digest.hexdigest()


def stay_offline() -> None:
    """Let the library download nothing in this process; before it is imported."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _open(path: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        how = "pip install 'vitbench[huggingface]'"
        raise UserError(f"dataset.name=huggingface: {error}; {how}") from error
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(path)  # nosec B615
    except Exception as error:  # of many kinds: no such set, no network, damaged files
        line = str(error).strip().splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(
            f"dataset.path={path}: cannot be opened ({line}); name ORG/NAME of the Hub or a folder "
            f"that holds the data set, and see that there is a network or the set is in its cache"
        ) from error


def _columns(features: Any, place: str) -> tuple[str, str, list[str]]:
    """Names of the columns of the image and of the class, and the classes."""
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    classes = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    for what, found in (("Image", images), ("ClassLabel", classes)):
        if len(found) != 1:
            shown = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
            raise UserError(
                f"{place}: has {len(found)} columns of kind {what} ({shown}); it must have one"
            )
    return images[0], classes[0], list(features[classes[0]].names)


def _targets(part: Any, column: str, classes: int, place: str) -> NDArray[np.int64]:
    targets = np.asarray(part[column][:], dtype=np.float64)
    if not np.isin(targets, range(classes)).all():
        raise UserError(f"{place}: {column} has values that are none of its {classes} classes")
    return targets.astype(np.int64)


def _undecoded(part: Any, image: str) -> Any:
    from datasets import Image

    return part.select_columns([image]).cast_column(image, Image(decode=False))


def _hold_out(which: NDArray[np.str_], missing: list[str]) -> None:
    """Give a part of the training images to the splits that are missing, in place."""
    train = np.random.default_rng(0).permutation(np.flatnonzero(which == "train"))
    count = max(1, len(train) // _HELD_OUT)
    for number, split in enumerate(missing):
        which[train[number * count : (number + 1) * count]] = split
