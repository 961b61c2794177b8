"""Where images come from: `resolve` decides which data set is used, `load` opens it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitbench.config import Dataset
from vitbench.data import cache, celeba, digits, folder, mnist
from vitbench.data.decode import Watch
from vitbench.data.faces import drawn
from vitbench.data.image_set import ImageSet, Split
from vitbench.errors import UserError

__all__ = ["ImageSet", "Resolved", "Split", "Watch", "data_folder", "load", "resolve"]

# What is left to do: given the folder of the cache entry and whom to tell of the progress.
Prepare = Callable[[Path, Watch | None], ImageSet]


def _digits(dataset: Dataset, base: Path) -> tuple[str, Prepare]:
    return "", lambda folder, watch: digits.load(dataset.image_size)


def _faces(dataset: Dataset, base: Path) -> tuple[str, Prepare]:
    return drawn.key(dataset), lambda folder, watch: drawn.load(dataset, watch)


def _folder(dataset: Dataset, base: Path) -> tuple[str, Prepare]:
    listed = folder.listing(dataset)
    key = folder.fingerprint(listed, dataset)
    return key, lambda partial, watch: folder.load(listed, dataset, partial, watch)


def _celeba(dataset: Dataset, base: Path) -> tuple[str, Prepare]:
    files = celeba.find(base)
    if files is None:
        raise UserError(f"dataset.name=celeba: not found in {base}/celeba")
    key = celeba.fingerprint(files, dataset)
    return key, lambda partial, watch: celeba.load(files, dataset, partial, watch)


def _mnist(dataset: Dataset, base: Path) -> tuple[str, Prepare]:
    files = mnist.find(base) or mnist.download(base)
    if files is None:
        raise UserError(f"dataset.name=mnist: not found in {base}/MNIST/raw")
    size = dataset.image_size
    return mnist.checksum(files, size), lambda folder, watch: mnist.load(files, size)


# Each data set of config.Dataset.name: from its settings and the data folder a key that changes
# with images and settings, and what prepares them.
_SOURCES: dict[str, Callable[[Dataset, Path], tuple[str, Prepare]]] = {
    "mnist": _mnist,
    "digits": _digits,
    "celeba": _celeba,
    "faces": _faces,
    "folder": _folder,
}


@dataclass(frozen=True)
class _MayBeMissing:
    """A data set whose files the user must have, or that must be downloaded.

    Attributes:
        title: its name for people.
        place: of the files, below the data folder.
        is_there: whether they are there, after a download where that is possible.
        tried: what was tried beside, as the end of a sentence.
        to_do: what the user can do.
    """

    title: str
    place: str
    is_there: Callable[[Path], bool]
    tried: str
    to_do: str


_MAY_BE_MISSING = {
    "mnist": _MayBeMissing(
        "MNIST",
        "MNIST/raw",
        lambda base: (mnist.find(base) or mnist.download(base)) is not None,
        " nor can it be downloaded",
        "put the four MNIST files (train-images-idx3-ubyte.gz, ...) there, name the folder that "
        "holds MNIST/raw with --data, or write `offline: digits` to use scikit-learn's digits "
        "instead",
    ),
    "celeba": _MayBeMissing(
        "CelebA",
        "celeba",
        lambda base: celeba.find(base) is not None,
        "",  # its home asks for a browser
        "put img_align_celeba.zip (or its folder), list_attr_celeba.txt, "
        "list_eval_partition.txt and list_landmarks_align_celeba.txt there, name the folder that "
        "holds celeba with --data, or write `offline: faces` to use drawn faces instead",
    ),
}


@dataclass(frozen=True)
class Resolved:
    """The data set that is really used, and what the user must be told about it."""

    dataset: Dataset
    notice: str | None = None


def data_folder(data_dir: Path | None) -> Path:
    """Where data sets lie: the argument, else $VITBENCH_DATA, else ~/.cache/vitbench/data."""
    return cache.chosen_folder(data_dir, "VITBENCH_DATA", "data")


def resolve(dataset: Dataset, data_dir: Path | None) -> Resolved:
    """Find the data set, or download it, or fall back on `offline` where the sweep allows it.

    Raises:
        UserError: if it is nowhere and there is no `offline`; says where to put the files.
    """
    used = dataset.model_copy(update={"offline": None})
    base, files = data_folder(data_dir), _MAY_BE_MISSING.get(dataset.name)
    if files is None:
        return Resolved(used)
    if files.is_there(base):
        # How often photographs are labelled wrongly is not for the sweep file to say.
        return Resolved(used.model_copy(update={"label_noise": None}))
    missing = f"{files.title} is not in {base / files.place}{files.tried}"
    if dataset.offline is None:
        raise UserError(f"dataset.name={dataset.name}: {missing}; {files.to_do}")
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

    Args:
        dataset: which images.
        data_dir: see `data_folder`.
        cache_dir: see `cache.folder`.
        watch: told of the progress of long preparations.

    Raises:
        UserError: if files are missing or damaged; names them.
    """
    key, prepare = _SOURCES[dataset.name](dataset, data_folder(data_dir))
    name = "-".join([dataset.name, str(dataset.image_size), *([key[:16]] if key else [])])
    return cache.cached(name, cache_dir, lambda partial: prepare(partial, watch))
