"""The contenders of `bench train` and `bench input`: bodies of processes (see `contest`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from vitbench import data, torchvision_import
from vitbench.bench import peers
from vitbench.bench.contest import Turns
from vitbench.config import Dataset as DatasetConfig
from vitbench.config import Model, Precision, Train, TrialConfig
from vitbench.data.image_set import ImageSet
from vitbench.model.builders import stacked_model
from vitbench.plan import StackPlan
from vitbench.rng import generator
from vitbench.training.batches import DeviceSplit, Streams
from vitbench.training.engine import EpochReport, fit

_HELD_OUT = 32  # images
_MANY_EPOCHS = 1_000_000
_LR = 3e-4
_STORED_PX, _MODEL_PX = 28, 32  # MNIST's images as a data set class hands them out, and resized

Batches = Iterable[tuple[Tensor, Tensor]]


def engine(
    turns: Turns,
    *,
    members: int,
    batch_size: int,
    images: int,
    device: str,
    threads: int,
    compiled: bool = False,
    **plan: Any,
) -> None:
    """vitbench's engine: a stack of K models; `plan` is of `stack_plan`."""
    torch.set_num_threads(threads)
    stack = stack_plan(members, batch_size, **plan)
    units = images * members

    def report(epoch: EpochReport) -> bool:
        turns.done(units, units / epoch.images_per_s)
        return turns.wait()

    image_set = tiled_digits(images)
    shape = {"image_size": image_set.image_size, "channels": image_set.channels}
    shape["outputs"] = image_set.outputs
    one = stacked_model(stack.shared.model, 1, rounded=False, **shape)
    turns.facts["parameters"] = one.flat.shape[1]
    del one
    turns.ready()
    if turns.wait():
        fit(stack, image_set, device=torch.device(device), report=report, compile=compiled)


def stack_plan(
    members: int,
    batch_size: int,
    *,
    width: int = 192,
    depth: int = 12,
    precision: Precision = "auto",
    build: str | None = None,
) -> StackPlan:
    """K models that differ in learning rate, as in the paper's Figure 5.

    `build` makes them in place of the stacked ViT, in its shape.
    """
    if build is None:
        model = Model(width=width, depth=depth, mlp=4 * width)
    else:
        model = Model(build=build, args={"width": width, "depth": depth})
    shared: Any = {"epochs": _MANY_EPOCHS, "batch_size": batch_size, "precision": precision}
    trains = [Train(lr=float(lr), **shared) for lr in np.geomspace(1e-5, 1e-3, members)]
    digits = DatasetConfig(name="digits")
    return StackPlan(tuple(TrialConfig(dataset=digits, model=model, train=t) for t in trains))


def peer(
    turns: Turns,
    *,
    library: str,
    batch_size: int,
    images: int,
    device: str,
    threads: int,
    workers: int | None,
    autocast: bool = False,
    compiled: bool = False,
) -> None:
    """Another library's model in the loop that its users write, with torch.optim.RAdam.

    Args:
        library: a key of `peers.BUILDERS`.
        workers: of the DataLoader; None for batches gathered from a tensor on the device.
        autocast: bfloat16 autocast; else float32 as torch comes.
        compiled: torch.compile in its mode for small batches (CUDA graphs on a GPU).
    """
    torch.set_num_threads(threads)
    image_set = tiled_digits(images)
    build = peers.BUILDERS[library]
    build(replace(peers.PAPER, depth=1))  # imports do not count as memory of the training
    turns.ready()
    model = build(peers.PAPER).to(device).train()
    turns.facts["parameters"] = sum(p.numel() for p in model.parameters())
    if compiled:
        model.compile(mode="reduce-overhead", dynamic=False)
    optimizer = torch.optim.RAdam(model.parameters(), lr=_LR)
    items = Items(image_set, device if workers is None else "cpu")
    batches = _batches(items, batch_size, device, workers)

    def train(epoch: int) -> None:
        total = torch.zeros((), device=device)
        for x_BCSS, y_B in batches(epoch):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, dtype=torch.bfloat16) if autocast else nullcontext():
                loss = nn.functional.cross_entropy(model(x_BCSS), y_B)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()  # the epoch is over when the device is done

    turns.take(images, train)


class Items(Dataset[tuple[Tensor, Tensor]]):
    """Resized images in memory, normalised when asked for: cheaper than decoding and resizing."""

    def __init__(self, images: ImageSet, device: str, split_name: str = "train") -> None:
        split = getattr(images, split_name)
        self._images = torch.from_numpy(np.ascontiguousarray(split.images)).to(device)
        self._targets = torch.from_numpy(np.ascontiguousarray(split.targets[:, 0])).to(device)
        self._mean = torch.tensor(images.mean, device=device)[:, None, None]
        self._std = torch.tensor(images.std, device=device)[:, None, None]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int | Tensor) -> tuple[Tensor, Tensor]:
        """One image, or a batch of them by an index [B]."""
        pixels = self._images[index].float().div(255).sub(self._mean).div(self._std)
        return pixels, self._targets[index]


class _StoredItems(Dataset[tuple[Tensor, int]]):
    """What torchvision.datasets.MNIST does: from an array in memory through a PIL image, each."""

    def __init__(self, images: ImageSet) -> None:
        pictures = (Image.fromarray(image[0]) for image in images.train.images)
        self._images = [np.asarray(p.resize((_STORED_PX, _STORED_PX))) for p in pictures]
        self._targets = images.train.targets[:, 0].tolist()
        transforms = torchvision_import.torchvision().transforms
        resize = transforms.Resize((_MODEL_PX, _MODEL_PX))
        normalise = transforms.Normalize((0.1307,), (0.3081,))
        self._transform = transforms.Compose([resize, transforms.ToTensor(), normalise])

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), self._targets[index]


class _Order(Sampler[int]):
    """The same order of images as every other contender, epoch by epoch."""

    def __init__(self, count: int) -> None:
        self._count, self.epoch = count, 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return iter(order_of_epoch(self._count, self.epoch).tolist())


def _batches(
    items: Any, batch_size: int, device: str, workers: int | None
) -> Callable[[int], Batches]:
    """The batches of an epoch on the device, from a DataLoader: what most training scripts use.

    `items` is a sized data set; where `workers` is None it lies on the device, and a batch is taken
    by its index.
    """
    order = _Order(len(items))

    def indexed(epoch: int) -> Batches:
        index_N = order_of_epoch(len(order), epoch).to(device)
        return (items[index_B] for index_B in index_N.split(batch_size))

    if workers is None:
        return indexed
    loader: DataLoader[Any] = DataLoader(
        items,
        batch_size,
        sampler=order,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        persistent_workers=workers > 0,
        pin_memory=device == "cuda",
    )

    def loaded(epoch: int) -> Batches:
        order.epoch = epoch
        for x_BCSS, y_B in loader:
            yield x_BCSS.to(device, non_blocking=True), y_B.to(device, non_blocking=True)

    return loaded


def engine_input(turns: Turns, *, device: str, batch_size: int, images: int, threads: int) -> None:
    """The engine's own batches: uint8 images on the device, gathered and normalised there."""
    torch.set_num_threads(threads)
    image_set, where = tiled_digits(images), torch.device(device)
    train, targets_LN = image_set.train, image_set.train.targets.T
    split = DeviceSplit(train, targets_LN, image_set.mean, image_set.std, where, torch.float32)
    streams = Streams([0], ["all"], {"all": torch.arange(images)})

    def batches(epoch: int) -> Batches:
        for index_SB in streams.order(epoch).to(where).split(batch_size, dim=1):
            yield split.normalised(index_SB)[0], split.targets_LN[0, index_SB[0]]

    _consume(turns, images, device, batches)


def loader_input(
    turns: Turns,
    *,
    device: str,
    batch_size: int,
    images: int,
    threads: int,
    workers: int,
    resized: bool,
) -> None:
    """A DataLoader of images resized beforehand, or resized by torchvision when asked for."""
    torch.set_num_threads(threads)
    image_set = tiled_digits(images)
    items = Items(image_set, "cpu") if resized else _StoredItems(image_set)
    _consume(turns, images, device, _batches(items, batch_size, device, workers))


def _consume(turns: Turns, images: int, device: str, batches: Callable[[int], Batches]) -> None:
    """Take every turn: touch each batch of an epoch, and wait until the device has them all."""

    def consume(epoch: int) -> None:
        total = torch.zeros((), device=device)
        for x_BCSS, y_B in batches(epoch):
            total += x_BCSS[0, 0, 0, 0] + y_B[0]
        total.item()

    turns.ready()
    turns.take(images, consume)


def tiled_digits(train_images: int) -> ImageSet:
    """The embedded digits (1 x 32 x 32), repeated until there are so many training images.

    Speed depends on shapes, not on content; real images keep the losses those of a real run.
    Held-out images cost an evaluation per epoch; these few keep it out of the measurement.
    """
    digits = data.load(DatasetConfig(name="digits"), None)
    index = np.resize(np.arange(len(digits.train)), train_images)
    few = np.arange(_HELD_OUT)
    return replace(
        digits,
        train=digits.train.take(index),
        val=digits.val.take(few),
        test=digits.test.take(few),
    )


def order_of_epoch(count: int, epoch: int) -> Tensor:
    """The order in which every contender sees the images in an epoch (1-based)."""
    return torch.randperm(count, generator=generator(0, "order", epoch))
