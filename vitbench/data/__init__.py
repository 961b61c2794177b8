"""Where images come from: `resolve` decides which data set is used, `load` opens it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.config import Dataset
from vitbench.data import cache, decode
from vitbench.data.decode import Watch
from vitbench.data.image_set import ImageSet, Split
from vitbench.data.sets import celeba, digits, folder, huggingface, mnist, own, vision_sets
from vitbench.data.sets.faces import faces
from vitbench.errors import UserError
from vitbench.words import printable

__all__ = ["ImageSet", "Resolved", "Split", "Watch", "data_folder", "load", "resolve"]


class _Fetched(NamedTuple):
    """A data set whose files the user must have, or that is downloaded."""

    title: str
    place: str  # of the files, below the data folder
    find: Callable[[Path], Any]  # the files, or None
    download: Callable[[Path], Any]  # the same after a download, or None
    tried: str  # beside, as the end of a sentence
    to_do: str


_FETCHED = {
    "mnist": _Fetched(
        "MNIST",
        "MNIST/raw",
        mnist.find,
        lambda base: mnist.download(base),
        " nor can it be downloaded",
        "put the four MNIST files (train-images-idx3-ubyte.gz, ...) there, name the folder that "
        "holds MNIST/raw with --data, or write `offline: digits` to use scikit-learn's digits "
        "instead",
    ),
    "celeba": _Fetched(
        "CelebA",
        "celeba",
        celeba.find,
        lambda base: None,
        "",  # its home asks for a browser
        "put img_align_celeba.zip (or its folder), list_attr_celeba.txt, "
        "list_eval_partition.txt and list_landmarks_align_celeba.txt there, name the folder that "
        "holds celeba with --data, or write `offline: faces` to use drawn faces instead",
    ),
}


_FETCHED |= {
    name: _Fetched(
        one.title,
        str(Path(one.files[0]).parent),
        one.find,
        one.download,
        " nor can it be downloaded",
        f"put its files there ({Path(one.files[0]).name}, ...), or name the folder that holds "
        f"{one.files[0]} with --data",
    )
    for name, one in vision_sets.SETS.items()
}


@dataclass(frozen=True)
class Resolved:
    """The data set that is really used, and what the user must be told about it."""

    dataset: Dataset
    notice: str | None = None


def data_folder(data_dir: Path | None) -> Path:
    """Where data sets lie: the argument, else $VITBENCH_DATA, else ~/.cache/vitbench/data."""
    return cache.chosen_folder(data_dir, "VITBENCH_DATA", "data")


def resolve(dataset: Dataset, data_dir: Path | None, *, download: bool = True) -> Resolved:
    """Find the data set, or download it, or fall back on `offline` where the sweep allows it.

    Raises:
        UserError: if it is nowhere and there is no `offline`; says where to put the files.
    """
    used = dataset.model_copy(update={"offline": None})
    base, fetched = data_folder(data_dir), _FETCHED.get(dataset.name)
    if dataset.name == "huggingface" and not download:
        huggingface.stay_offline()
    if fetched is None:
        return Resolved(used)
    with _readable(dataset, base):
        found = fetched.find(base)
        if not found and download:
            base.mkdir(parents=True, exist_ok=True)
            found = fetched.download(base)
    if found:
        # How often photographs are labelled wrongly is not for the sweep file to say.
        return Resolved(used.model_copy(update={"label_noise": None}))
    tried = fetched.tried if download else ", and a dry run downloads nothing"
    missing = f"{fetched.title} is not in {base / fetched.place}{tried}"
    if dataset.offline is None:
        raise UserError(f"dataset.name={dataset.name}: {missing}; {fetched.to_do}")
    return Resolved(
        used.model_copy(update={"name": dataset.offline, "split": None}),
        f"{missing}: this run uses {dataset.offline} instead, and says so in every row and title.",
    )


def load(
    dataset: Dataset,
    data_dir: Path | None,
    cache_dir: Path | None = None,
    watch: Watch | None = None,
) -> ImageSet:
    """Open a data set (as `resolve` returned it) from the cache, preparing it first if need be.

    Folders are chosen by `data_folder` and `cache.folder`; `watch` is told of the progress of long
    preparations.

    Raises:
        UserError: if files are missing or damaged; names them.
    """
    base = data_folder(data_dir)
    with _readable(dataset, base):
        key, prepare = _source(dataset, base)
        name = "-".join([dataset.name, str(dataset.image_size), *([key[:16]] if key else [])])
        return cache.cached(name, cache_dir, lambda partial: prepare(partial, watch))


@contextlib.contextmanager
def _readable(dataset: Dataset, base: Path) -> Iterator[None]:
    """Say which file or folder cannot be read or written."""
    try:
        yield
    except OSError as error:
        place = printable(str(error.filename or base))[:200]
        raise UserError(
            f"dataset.name={dataset.name}: {place}: {error.strerror or error}; see that it can be "
            f"read (another folder: --data or $VITBENCH_DATA), and that the image cache can be "
            f"written and has space (another: $VITBENCH_CACHE)"
        ) from error


def _source(dataset: Dataset, base: Path) -> tuple[str, Callable[[Path, Watch | None], ImageSet]]:
    """A key that changes with images and settings, and what prepares the images in a folder."""
    files: Any = None
    if fetched := _FETCHED.get(dataset.name):
        files = fetched.find(base)
        if files is None:
            raise UserError(f"dataset.name={dataset.name}: not found in {base / fetched.place}")
    if (one := vision_sets.SETS.get(dataset.name)) is not None:
        key = vision_sets.checksum(files, dataset.image_size)
        return key, lambda partial, watch: one.load(dataset.name, files, dataset.image_size)
    match dataset.name:
        case "mnist":
            size = dataset.image_size
            return mnist.checksum(files, size), lambda partial, watch: mnist.load(files, size)
        case "digits":
            return "", lambda partial, watch: digits.load(dataset.image_size)
        case "faces":
            return faces.key(dataset), lambda partial, watch: faces.load(dataset, watch)
        case "celeba":
            return celeba.fingerprint(files, dataset), lambda partial, watch: decode.build(
                celeba.pictures(files, dataset), dataset, partial, watch
            )
        case "folder":
            pictures = folder.pictures(dataset)
            return folder.fingerprint(pictures, dataset), lambda partial, watch: decode.build(
                pictures, dataset, partial, watch
            )
        case "huggingface":
            listed = huggingface.pictures(dataset)
            return huggingface.fingerprint(listed, dataset), lambda partial, watch: decode.build(
                listed, dataset, partial, watch
            )
        case "own":
            return own.key(dataset), lambda partial, watch: own.load(dataset)
        case _:
            raise ValueError(f"unknown data set {dataset.name!r}")
