"""The images of a sweep, opened and checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from vitbench import data
from vitbench.config import Dataset, Sweep
from vitbench.data import ImageSet

if TYPE_CHECKING:
    from rich.progress import TaskID


def prepare(dataset: Dataset, data_dir: Path, console: Console) -> ImageSet:
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


def with_images(sweep: Sweep, dataset: Dataset, images: ImageSet, *, substitute: bool) -> Sweep:
    """The sweep with the data set that is really used and its numbers of images written out.

    A substitute is smaller than what the sweep was written for: it is used whole where the sweep
    asks for more. Otherwise asking for more images than there are is the user's error.
    """
    counts = {}
    for split in ("train", "val", "test"):
        asked = getattr(sweep.train, f"{split}_images")
        there = len(getattr(images, split))
        counts[f"{split}_images"] = (
            there if asked is None or (substitute and asked > there) else asked
        )
    train = sweep.train.model_copy(update=counts)
    return sweep.model_copy(update={"dataset": dataset, "train": train})


def check_labels(sweep: Sweep, images: ImageSet) -> None:
    """Check that every label of the sweep is there, with enough images to match.

    Raises:
        UserError: naming the label and what there is.
    """
    axes = [sweep.search.space.get("label"), sweep.search.inner.get("label")]
    lists = [axis for axis in axes if isinstance(axis, list)]
    labels = [label for axis in lists for label in axis] or [sweep.train.label]
    for label in labels:
        if label is None:
            continue
        images.binary_targets("train", str(label))
        if sweep.train.matched is not None:
            for split in ("train", "val", "test"):
                images.matched(split, str(label), sweep.train.matched)
