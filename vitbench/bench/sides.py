"""The contenders of `bench train`, each the body of a process of its own (see `contest`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from vitbench import data
from vitbench.bench import peers
from vitbench.bench.contest import Turns
from vitbench.config import Dataset as DatasetConfig
from vitbench.config import Model, Precision, Train, TrialConfig
from vitbench.data.image_set import ImageSet
from vitbench.plan import StackPlan, parameter_count
from vitbench.rng import generator

# Held-out images cost an evaluation per epoch; these few keep it out of the measurement.
_HELD_OUT = 32
_MANY_EPOCHS = 1_000_000
_LR = 3e-4


def engine(
    turns: Turns,
    *,
    members: int,
    batch_size: int,
    images: int,
    device: str,
    threads: int,
    width: int = 192,
    depth: int = 12,
    precision: Precision = "auto",
    compiled: bool = False,
) -> None:
    """vitbench's engine: a stack of K models that differ in learning rate."""
    from vitbench.training.engine import EpochReport, fit

    torch.set_num_threads(threads)
    image_set = tiled_digits(images, _HELD_OUT)
    plan = stack_plan(members, batch_size, width=width, depth=depth, precision=precision)
    turns.state(parameters=parameter_count(plan.shared.model, 32, 1, 10))
    turns.ready()

    def report(epoch: EpochReport) -> bool:
        units = images * members
        turns.done(units, units / epoch.images_per_s)
        return turns.wait()

    if turns.wait():
        fit(plan, image_set, device=torch.device(device), report=report, compile=compiled)


def stack_plan(
    members: int,
    batch_size: int,
    *,
    width: int = 192,
    depth: int = 12,
    precision: Precision = "auto",
) -> StackPlan:
    """K models that differ in learning rate, as in the paper's Figure 5."""
    return StackPlan(
        tuple(
            TrialConfig(
                dataset=DatasetConfig(name="digits"),
                model=Model(width=width, depth=depth, mlp=4 * width),
                train=Train(
                    epochs=_MANY_EPOCHS, batch_size=batch_size, lr=float(lr), precision=precision
                ),
            )
            for lr in np.geomspace(1e-5, 1e-3, members)
        )
    )


def peer(
    turns: Turns,
    *,
    library: str,
    batch_size: int,
    images: int,
    device: str,
    threads: int,
    loader: str,
    workers: int,
    autocast: bool,
    compiled: bool,
) -> None:
    """Another library's model in the loop that its users write, with torch.optim.RAdam.

    Args:
        library: a key of `peers.BUILDERS`.
        loader: `dataloader`, or `tensors` for batches gathered from a tensor on the device.
        autocast: bfloat16 autocast; else float32 as torch comes.
        compiled: torch.compile in its mode for small batches (CUDA graphs on a GPU).
    """
    torch.set_num_threads(threads)
    where = torch.device(device)
    image_set = tiled_digits(images, _HELD_OUT)
    build = peers.BUILDERS[library]
    build(
        replace(peers.PAPER, depth=1)
    )  # the library's imports do not count as memory of the training
    turns.ready()
    model = build(peers.PAPER).to(where).train()
    turns.state(parameters=sum(p.numel() for p in model.parameters()))
    if compiled:
        model.compile(mode="reduce-overhead", dynamic=False)
    optimizer = torch.optim.RAdam(model.parameters(), lr=_LR)
    if loader == "dataloader":
        batches: DataLoaderBatches | TensorBatches = DataLoaderBatches(
            image_set, batch_size, workers, where
        )
    else:
        batches = TensorBatches(image_set, batch_size, where)

    def train(epoch: int) -> None:
        total = torch.zeros((), device=where)
        for x_BCSS, y_B in batches.epoch(epoch):
            optimizer.zero_grad(set_to_none=True)
            with _autocast(where, autocast):
                loss = nn.functional.cross_entropy(model(x_BCSS), y_B)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()  # the epoch is over when the device is done

    turns.take(images, train)


def consume(batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> None:
    """Touch every batch, and wait until the device has them all."""
    total = torch.zeros((), device=device)
    for x_BCSS, y_B in batches:
        total += x_BCSS[0, 0, 0, 0] + y_B[0]
    total.item()


def _autocast(device: torch.device, enabled: bool) -> AbstractContextManager[object]:
    return torch.autocast(device.type, dtype=torch.bfloat16) if enabled else nullcontext()


class _Items(Dataset[tuple[Tensor, Tensor]]):
    """Resized images in memory, normalised when asked for: cheaper than decoding and resizing."""

    def __init__(self, images: ImageSet, device: torch.device | None = None) -> None:
        split = images.train
        self.images = torch.from_numpy(np.ascontiguousarray(split.images)).to(device)
        self._targets = torch.from_numpy(np.ascontiguousarray(split.targets[:, 0])).to(device)
        self._mean = torch.tensor(images.mean, device=device)[:, None, None]
        self._std = torch.tensor(images.std, device=device)[:, None, None]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | Tensor) -> tuple[Tensor, Tensor]:
        """One image, or a batch of them by an index [B]."""
        pixels = self.images[index].float().div(255).sub(self._mean).div(self._std)
        return pixels, self._targets[index]


class _Order(Sampler[int]):
    """The same order of images as every other contender, epoch by epoch."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.epoch = 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return iter(order_of_epoch(self._count, self.epoch).tolist())


class DataLoaderBatches:
    """A torch DataLoader: what most training scripts use."""

    def __init__(
        self, image_set: ImageSet, batch_size: int, workers: int, device: torch.device
    ) -> None:
        items = _Items(image_set)
        self._order = _Order(len(items))
        self._device = device
        self._loader = DataLoader(
            items,
            batch_size,
            sampler=self._order,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch on the device."""
        self._order.epoch = number
        for x_BCSS, y_B in self._loader:
            yield (
                x_BCSS.to(self._device, non_blocking=True),
                y_B.to(self._device, non_blocking=True),
            )


class TensorBatches:
    """All images on the device; a batch is an index and a normalisation."""

    def __init__(self, image_set: ImageSet, batch_size: int, device: torch.device) -> None:
        self._items, self._batch_size = _Items(image_set, device), batch_size

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch on the device."""
        order = order_of_epoch(len(self._items), number).to(self._items.images.device)
        yield from (self._items[index_B] for index_B in order.split(self._batch_size))


def tiled_digits(train_images: int, held_out: int) -> ImageSet:
    """The embedded digits (1 x 32 x 32), repeated until there are so many training images.

    Speed depends on shapes, not on content; real images keep the losses those of a real run.
    """
    digits = data.load(DatasetConfig(name="digits"), None)
    index = np.resize(np.arange(len(digits.train.images)), train_images)
    return replace(
        digits,
        train=digits.train.take(index),
        val=digits.val.take(np.arange(held_out)),
        test=digits.test.take(np.arange(held_out)),
    )


def order_of_epoch(count: int, epoch: int) -> Tensor:
    """The order in which every contender sees the images in an epoch (1-based)."""
    return torch.randperm(count, generator=generator(0, "order", epoch))
