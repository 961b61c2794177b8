"""The images of a sweep, opened and checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from vitbench import data
from vitbench.config import Dataset, Range, Sweep
from vitbench.data import ImageSet, Resolved, subsets
from vitbench.data.image_set import SPLITS
from vitbench.data.sets import mnist
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
    images = everything.subset(largest_size(settled), train.val_images, train.test_images)
    _check_labels(settled, images, everything)
    return Prepared(settled, everything, images)


def largest_size(sweep: Sweep) -> int | None:
    """The most training images that a model of the sweep has; None for all that there are."""
    axis = sweep.search.space.get("train_images", [sweep.train.train_images])
    if isinstance(axis, Range):
        return int(axis.high)
    sizes = [size for size in axis if isinstance(size, int)]
    return max(sizes) if len(sizes) == len(axis) else None


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

    def settled(asked: Any, split: str) -> Any:
        there = len(getattr(images, split))
        whole = asked is None or (resolved.notice is not None and asked > there)
        return there if whole else asked

    names = {f"{split}_images": split for split in SPLITS}
    counts = {name: settled(getattr(sweep.train, name), split) for name, split in names.items()}
    train = sweep.train.model_copy(update=counts)
    space = dict(sweep.search.space)
    for name in names.keys() & space.keys():
        axis = space[name]
        if not isinstance(axis, Range):  # sizes that a substitute lacks become its own, once
            space[name] = list(dict.fromkeys(settled(size, names[name]) for size in axis))
    search = sweep.search.model_copy(update={"space": space})
    return sweep.model_copy(update={"dataset": resolved.dataset, "train": train, "search": search})


def _check_labels(sweep: Sweep, images: ImageSet, everything: ImageSet) -> None:
    """Refuse labels of the sweep that are not there, or have too few images to match."""
    train, space, inner = sweep.train, sweep.search.space, sweep.search.inner
    draws = train.subset == "per_seed" and train.matched is not None
    seeds = _values({**space, **inner}.get("seed"), train.seed) if draws else []
    keyed = [
        (f"search.{part}.label", label)
        for part, axes in (("space", space), ("inner", inner))
        if isinstance(axis := axes.get("label"), list)
        for label in axis
    ]
    for key, label in keyed or [("train.label", train.label)]:
        if label is None:
            continue
        if label not in images.labels:
            hint = did_you_mean(str(label), images.labels)
            raise UserError(f"{key}={label}: is not a label of {images.name}; {hint}")
        if train.matched is not None:
            for split in SPLITS:
                images.matched(split, str(label), train.matched)
        for seed in seeds:
            subsets.pool(everything, "train", train, str(label), int(seed))


def _values(axis: Any, fixed: Any) -> list[Any]:
    """The values of an axis, or the one that is fixed."""
    return axis if isinstance(axis, list) else [fixed]
