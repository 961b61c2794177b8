"""Where images come from: `resolve` decides which data set is used, `load` opens it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vitbench.config import Dataset
from vitbench.data import cache, celeba, digits, folder, mnist
from vitbench.data.decode import Watch
from vitbench.data.faces import drawn
from vitbench.data.image_set import ImageSet, Split
from vitbench.errors import UserError

__all__ = ["ImageSet", "Resolved", "Split", "Watch", "data_folder", "load", "resolve"]

_TO_DO = {
    "mnist": "put the four MNIST files (train-images-idx3-ubyte.gz, ...) there, name the folder "
    "that holds MNIST/raw with --data, or write `offline: digits` to use scikit-learn's digits "
    "instead",
    "celeba": "put img_align_celeba.zip (or its folder), list_attr_celeba.txt, "
    "list_eval_partition.txt and list_landmarks_align_celeba.txt there, name the folder that "
    "holds celeba with --data, or write `offline: faces` to use drawn faces instead",
}
_NAMES = {"mnist": "MNIST", "celeba": "CelebA"}


@dataclass(frozen=True)
class Resolved:
    """The data set that is really used, and what the user must be told about it."""

    dataset: Dataset
    notice: str | None = None


def data_folder(data_dir: Path | None) -> Path:
    """Where data sets lie: the argument, else $VITBENCH_DATA, else ~/.cache/vitbench/data."""
    if data_dir is not None:
        return data_dir
    if chosen := os.environ.get("VITBENCH_DATA"):
        return Path(chosen)
    return Path.home() / ".cache" / "vitbench" / "data"


def resolve(dataset: Dataset, data_dir: Path | None) -> Resolved:
    """Find the data set, or download it, or fall back on `offline` where the sweep allows it.

    Raises:
        UserError: if it is nowhere and there is no `offline`; says where to put the files.
    """
    used = dataset.model_copy(update={"offline": None})
    base = data_folder(data_dir)
    if dataset.name == "mnist":
        there, place = _find_mnist(data_dir) is not None, base / "MNIST" / "raw"
        tried = " nor can it be downloaded"
    elif dataset.name == "celeba":
        there, place = celeba.find(base) is not None, base / "celeba"
        tried = ""  # its home asks for a browser
    else:
        return Resolved(used)
    if there:
        # How often photographs are labelled wrongly is not for the sweep file to say.
        return Resolved(used.model_copy(update={"label_noise": None}))
    name = _NAMES[dataset.name]
    if dataset.offline is None:
        raise UserError(
            f"dataset.name={dataset.name}: {name} is not in {place}{tried}; {_TO_DO[dataset.name]}"
        )
    return Resolved(
        used.model_copy(update={"name": dataset.offline, "split": None}),
        f"{name} is not in {place}{tried}: this run uses {dataset.offline} instead, and says so in "
        f"every row and title.",
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
    size = dataset.image_size
    if dataset.name == "digits":
        return cache.cached(f"digits-{size}", cache_dir, lambda: digits.load(size))
    if dataset.name == "faces":
        return cache.cached(
            f"faces-{size}-{drawn.key(dataset)}", cache_dir, lambda: drawn.load(dataset, watch)
        )
    if dataset.name == "folder":
        listed = folder.listing(dataset)
        key = f"folder-{size}-{folder.fingerprint(listed, dataset)[:16]}"
        return cache.resumable(
            key, cache_dir, lambda partial: folder.load(listed, dataset, partial, watch)
        )
    if dataset.name == "celeba":
        found = celeba.find(data_folder(data_dir))
        if found is None:
            raise UserError(f"dataset.name=celeba: not found in {data_folder(data_dir)}/celeba")
        key = f"celeba-{size}-{celeba.fingerprint(found, dataset)[:16]}"
        return cache.resumable(
            key, cache_dir, lambda partial: celeba.load(found, dataset, partial, watch)
        )
    files = _find_mnist(data_dir)
    if files is None:
        raise UserError(f"dataset.name=mnist: not found in {data_folder(data_dir)}/MNIST/raw")
    key = f"mnist-{size}-{mnist.checksum(files, size)[:16]}"
    return cache.cached(key, cache_dir, lambda: mnist.load(files, size))


def _find_mnist(data_dir: Path | None) -> dict[str, Path] | None:
    base = data_folder(data_dir)
    return mnist.find(base) or mnist.download(base)
