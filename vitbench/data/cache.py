"""Images decoded and resized once: memory-mapped .npy files under a content-hashed name."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vitbench.data import decode, files
from vitbench.data.image_set import SPLITS, ImageSet, Split
from vitbench.errors import UserError
from vitbench.records.files import replacing

_ARRAYS = ("images", "targets", "landmarks")
_FACTS = ("name", "classes", "labels", "mean", "std", "checksum", "source", "label_noise")


def folder(cache_dir: Path | None) -> Path:
    """Where caches lie: the argument, else $VITBENCH_CACHE, else ~/.cache/vitbench/images."""
    return chosen_folder(cache_dir, "VITBENCH_CACHE", "images")


def chosen_folder(argument: Path | None, variable: str, name: str) -> Path:
    """The argument, else what an environment variable names, else ~/.cache/vitbench/<name>."""
    if argument is not None:
        return argument
    chosen = os.environ.get(variable)
    return Path(chosen) if chosen else Path.home() / ".cache" / "vitbench" / name


def cached(key: str, cache_dir: Path | None, make: Callable[[Path], ImageSet]) -> ImageSet:
    """Open the image set kept under `key`, preparing it where an interrupted run left off.

    One that is damaged, in whatever byte, is prepared anew.

    Several processes may ask at once: one prepares, the others wait and open what it made.

    `make` is given the unfinished folder, which may hold what an earlier run did; arrays that it
    returns mapped are to lie there as `<split>_images.npy`.

    Raises:
        UserError: of `make`; the unfinished folder is removed.
    """
    path = folder(cache_dir) / key
    if not _is_whole(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / f".{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_whole(path):
                if path.exists():
                    shutil.rmtree(path)
                _prepare(path, path.parent / f".{key}.partial", make)
    return open_folder(path)


def holds(path: Path) -> bool:
    """Whether an image set is prepared in this folder."""
    return (path / "info.json").is_file()


def _is_whole(path: Path) -> bool:
    """Whether an image set is prepared here and every file of it is as it was written."""
    try:
        info = json.loads(files.read(path / "info.json"))
        arrays, own = info.pop("sha256"), info.pop("own_sha256")
        return bool(
            own == _digest_of(info, arrays)
            and arrays.keys() == {file.name for file in path.glob("*.npy")}
            and all(files.digest(path / name).hex() == digest for name, digest in arrays.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _digest_of(info: dict[str, Any], arrays: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps([info, arrays], sort_keys=True).encode()).hexdigest()


def folder_of(images: ImageSet) -> Path:
    """Where an image set that `cached` opened is kept."""
    mapped = images.train.images
    if not isinstance(mapped, np.memmap) or mapped.filename is None:
        raise ValueError("these images were not opened from the cache")
    return Path(mapped.filename).parent


def _prepare(path: Path, partial: Path, make: Callable[[Path], ImageSet]) -> None:
    partial.mkdir(exist_ok=True)
    try:
        images = make(partial)
    except UserError:
        shutil.rmtree(partial)
        raise
    for split in SPLITS:
        for array in _ARRAYS:
            values = getattr(getattr(images, split), array)
            # What is mapped lies in the folder already.
            if values is not None and not isinstance(values, np.memmap):
                # What is replaced may be mapped where the values came from.
                file = partial / f"{split}_{array}.npy"
                with replacing(file) as temporary, temporary.open("wb") as stream:
                    np.save(stream, values)
    info = {name: getattr(images, name) for name in _FACTS}
    arrays = {file.name: files.digest(file).hex() for file in sorted(partial.glob("*.npy"))}
    digests = {"sha256": arrays, "own_sha256": _digest_of(info, arrays)}
    (partial / "info.json").write_text(json.dumps(info | digests, indent=1), encoding="utf-8")
    (partial / decode.DONE).unlink(missing_ok=True)
    os.replace(partial, path)


def open_folder(path: Path) -> ImageSet:
    """Open a prepared image set; its images are memory-mapped."""
    info = json.loads((path / "info.json").read_text(encoding="utf-8"))
    parts: dict[str, Any] = {}
    for name in SPLITS:
        marks = path / f"{name}_landmarks.npy"
        parts[name] = Split(
            images=np.load(path / f"{name}_images.npy", mmap_mode="r"),
            targets=np.load(path / f"{name}_targets.npy"),
            landmarks=np.load(marks) if marks.is_file() else None,
        )
    for name in _FACTS:
        value = info.get(name)  # label_noise is not in caches of earlier versions
        parts[name] = tuple(value) if isinstance(value, list) else value
    return ImageSet(**parts)
