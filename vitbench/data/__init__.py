"""Where images come from: `resolve` decides which data set is used, `load` opens it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vitbench.config import Dataset
from vitbench.data import cache, digits, mnist
from vitbench.data.image_set import ImageSet, Split
from vitbench.errors import UserError

__all__ = ["ImageSet", "Resolved", "Split", "data_folder", "load", "resolve"]


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
    if dataset.name == "digits" or _find_mnist(data_dir) is not None:
        return Resolved(used)
    folder = data_folder(data_dir) / "MNIST" / "raw"
    if dataset.offline is None:
        raise UserError(
            f"dataset.name={dataset.name}: found neither in {folder} nor for download; put the "
            f"four MNIST files (train-images-idx3-ubyte.gz, ...) there, name their folder with "
            f"--data, or write `offline: digits` to use scikit-learn's digits instead"
        )
    return Resolved(
        used.model_copy(update={"name": dataset.offline}),
        f"MNIST is neither in {folder} nor can it be downloaded: this run uses "
        f"{dataset.offline} instead, and says so in every row and title.",
    )


def load(dataset: Dataset, data_dir: Path | None, cache_dir: Path | None = None) -> ImageSet:
    """Open a data set (as `resolve` returned it) from the cache, preparing it first if need be.

    Raises:
        UserError: if files are missing or damaged; names them.
    """
    size = dataset.image_size
    if dataset.name == "digits":
        return cache.cached(f"digits-{size}", cache_dir, lambda: digits.load(size))
    files = _find_mnist(data_dir)
    if files is None:
        raise UserError(f"dataset.name=mnist: not found in {data_folder(data_dir)}/MNIST/raw")
    key = f"mnist-{size}-{mnist.checksum(files, size)[:16]}"
    return cache.cached(key, cache_dir, lambda: mnist.load(files, size))


def _find_mnist(data_dir: Path | None) -> dict[str, Path] | None:
    folder = data_folder(data_dir)
    return mnist.find(folder) or mnist.download(folder)
