"""`bench input`: how fast images reach the model, normalised and on its device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitbench import hardware
from vitbench.bench.contest import Contender, Turns
from vitbench.bench.report import Report
from vitbench.bench.session import Session
from vitbench.bench.sides import DataLoaderBatches, consume, tiled_digits
from vitbench.data import _torchvision
from vitbench.training.batches import DeviceSplit, Streams

_STORED_PX = 28  # MNIST's images, as a data set class hands them out
_MODEL_PX = 32
_HERE = "vitbench.bench.inputs"


def measure(session: Session) -> Iterator[Report]:
    """Images a second; ratios refer to the torchvision pipeline in one process."""
    (batch_size, *_) = session.batch_size or [128]
    images = session.images or (512 if session.quick else 4096)
    everyone = contenders(
        device=session.device,
        batch_size=batch_size,
        images=images,
        threads=session.threads,
        workers=max(2, hardware.cpu_count()),
    )
    yield session.compete(
        everyone,
        benchmark="input",
        title="Input, 28x28 images to normalised 32x32 batches",
        settings={"batch": batch_size, "images per turn": images, "rounds": session.rounds},
        reference="torchvision, in process",
    )


def contenders(
    *, device: str, batch_size: int, images: int, threads: int, workers: int
) -> list[Contender]:
    """Everyone in the order of the table."""
    common: dict[str, Any] = {
        "device": device,
        "batch_size": batch_size,
        "images": images,
        "threads": threads,
    }
    # A turn of a few milliseconds measures nothing: the fast ones get more to do.
    fast, faster = {**common, "images": images * 5}, {**common, "images": images * 40}
    return [
        Contender("vitbench", f"{_HERE}:ours", faster),
        Contender("torchvision, in process", f"{_HERE}:torchvision", {**common, "workers": 0}),
        Contender(
            f"torchvision, {workers} workers",
            f"{_HERE}:torchvision",
            {**common, "workers": workers},
        ),
        Contender("resized tensors, DataLoader", f"{_HERE}:resized", fast),
    ]


def ours(turns: Turns, *, device: str, batch_size: int, images: int, threads: int) -> None:
    """The engine's own batches: uint8 images on the device, gathered and normalised there."""
    torch.set_num_threads(threads)
    where = torch.device(device)
    image_set = tiled_digits(images, 1)
    split = DeviceSplit(
        image_set.train,
        image_set.train.targets.T,
        image_set.mean,
        image_set.std,
        where,
        torch.float32,
    )
    streams = Streams([0], ["all"], {"all": torch.arange(images)})

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for index_SB in streams.order(epoch).to(where).split(batch_size, dim=1):
            yield split.normalised(index_SB)[0], split.targets_LN[0, index_SB[0]]

    turns.ready()
    turns.take(images, lambda epoch: consume(batches(epoch), where))


class _Stored(Dataset[tuple[Image.Image, int]]):
    """What torchvision.datasets.MNIST does: an array in memory, a PIL image per item."""

    def __init__(self, images: int, transform: Callable[[Image.Image], Tensor]) -> None:
        split = tiled_digits(images, 1).train
        pictures = (Image.fromarray(image[0]) for image in split.images)
        self._images = [np.asarray(p.resize((_STORED_PX, _STORED_PX))) for p in pictures]
        self._targets = split.targets[:, 0].tolist()
        self._transform = transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Any:
        return self._transform(Image.fromarray(self._images[index])), self._targets[index]


def torchvision(
    turns: Turns, *, device: str, batch_size: int, images: int, threads: int, workers: int
) -> None:
    """Resize, ToTensor and Normalize per image, in a shuffling DataLoader."""
    torch.set_num_threads(threads)
    transforms = _torchvision.torchvision().transforms
    where = torch.device(device)
    steps = [
        transforms.Resize((_MODEL_PX, _MODEL_PX)),
        transforms.ToTensor(),
        transforms.Normalize((0.1307,), (0.3081,)),
    ]
    loader = DataLoader(
        _Stored(images, transforms.Compose(steps)),
        batch_size,
        shuffle=True,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        persistent_workers=workers > 0,
        pin_memory=where.type == "cuda",
    )
    turns.ready()
    turns.take(
        images, lambda epoch: consume(((x.to(where), y.to(where)) for x, y in loader), where)
    )


def resized(turns: Turns, *, device: str, batch_size: int, images: int, threads: int) -> None:
    """Images resized beforehand, normalised one by one in a DataLoader of one process."""
    torch.set_num_threads(threads)
    where = torch.device(device)
    batches = DataLoaderBatches(tiled_digits(images, 1), batch_size, 0, where)
    turns.ready()
    turns.take(images, lambda epoch: consume(batches.epoch(epoch), where))
