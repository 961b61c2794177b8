"""Images for the benchmarks: real ones, repeated to the size asked for, in one order for all."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from vitbench import data
from vitbench.config import Dataset
from vitbench.data.image_set import ImageSet
from vitbench.rng import generator


def tiled_digits(train_images: int, held_out: int) -> ImageSet:
    """The embedded digits (1 x 32 x 32), repeated until there are so many training images.

    Speed depends on shapes, not on content; real images keep the losses those of a real run.
    """
    digits = data.load(Dataset(name="digits"), None)
    index = np.resize(np.arange(len(digits.train.images)), train_images)
    return dataclasses.replace(
        digits,
        train=digits.train.take(index),
        val=digits.val.take(np.arange(held_out)),
        test=digits.test.take(np.arange(held_out)),
    )


def order_of_epoch(count: int, epoch: int) -> Tensor:
    """The order in which every contender sees the images in an epoch (1-based)."""
    return torch.randperm(count, generator=generator(0, "order", epoch))
