"""The images of a sweep, opened and checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from vitbench import data
from vitbench.config import Dataset, Sweep
from vitbench.data import ImageSet, Resolved, mnist
from vitbench.data.image_set import SPLITS
from vitbench.errors import UserError
from vitbench.words import did_you_mean

if TYPE_CHECKING:
    from rich.progress import TaskID


@dataclass(frozen=True)
class Prepared:
    """A sweep and its images."""

    sweep: Sweep  # with the data set that is really used and its numbers of images written out
    everything: ImageSet  # of the data set
    images: ImageSet  # that the sweep asks for


def prepare(
    sweep: Sweep, data_dir: Path | None, console: Console, *, download: bool = True
) -> Prepared:
    """Open the images of a sweep and check that it can be trained on them.

    The console is told of substitutes and of the progress of long preparations. Without `download`
    blank images in MNIST's numbers stand in for it where it is not at hand.

    Raises:
        UserError: if images are missing or damaged, or too few for what the sweep asks.
    """
    folder = data.data_folder(data_dir).resolve()
    if download or sweep.dataset.name != "mnist" or mnist.find(folder) is not None:
        resolved = data.resolve(sweep.dataset, folder, download=download)
        everything = _open(resolved.dataset, folder, console)
    else:
        resolved = Resolved(sweep.dataset.model_copy(update={"offline": None}))
        everything = mnist.stand_in(sweep.dataset.image_size)
    if resolved.notice:
        console.print(resolved.notice, style="bold yellow", soft_wrap=True, markup=False)
    settled = _with_images(sweep, resolved, everything)
    train = settled.train
    images = everything.subset(train.train_images, train.val_images, train.test_images)
    _check_labels(settled, images)
    return Prepared(settled, everything, images)


def _open(dataset: Dataset, data_dir: Path, console: Console) -> ImageSet:
    """Open the images, with a progress bar where they must be decoded or drawn first."""
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        *Progress.get_default_columns()[1:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        bars: dict[str, TaskID] = {}

        def watch(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
                if not console.is_terminal:
                    console.print(f"{what}: {total:,} images, once", soft_wrap=True, markup=False)
            progress.update(bars[what], completed=done)

        return data.load(dataset, data_dir, watch=watch)


def _with_images(sweep: Sweep, resolved: Resolved, images: ImageSet) -> Sweep:
    """The sweep with the data set that is really used and its numbers of images written out.

    A substitute is smaller than what the sweep was written for: it is used whole where the sweep
    asks for more. Otherwise asking for more images than there are is the user's error.
    """
    counts = {}
    for split in SPLITS:
        asked = getattr(sweep.train, f"{split}_images")
        there = len(getattr(images, split))
        whole = asked is None or (resolved.notice is not None and asked > there)
        counts[f"{split}_images"] = there if whole else asked
    train = sweep.train.model_copy(update=counts)
    return sweep.model_copy(update={"dataset": resolved.dataset, "train": train})


def _check_labels(sweep: Sweep, images: ImageSet) -> None:
    """Refuse labels of the sweep that are not there, or have too few images to match."""
    keyed = [
        (f"search.{part}.label", label)
        for part, axes in (("space", sweep.search.space), ("inner", sweep.search.inner))
        if isinstance(axis := axes.get("label"), list)
        for label in axis
    ]
    for key, label in keyed or [("train.label", sweep.train.label)]:
        if label is None:
            continue
        if label not in images.labels:
            hint = did_you_mean(str(label), images.labels)
            raise UserError(f"{key}={label}: is not a label of {images.name}; {hint}")
        if sweep.train.matched is not None:
            for split in SPLITS:
                images.matched(split, str(label), sweep.train.matched)
