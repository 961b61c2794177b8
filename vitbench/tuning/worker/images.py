"""The images of a sweep on every node: opened where they are prepared, else sent there once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray

from vitbench.data import cache
from vitbench.data.image_set import ImageSet, Split


@dataclass(frozen=True)
class SharedImages:
    """How a worker comes by the images; travels with the trainable."""

    # Where the driver has them, memory-mapped; also on this node if nodes share a disk.
    folder: Path
    # A reference to a copy in Ray's object store, which a node fetches once and its processes
    # share; empty where there is one node only.
    shipped: tuple[Any, ...] = ()

    @classmethod
    def share(cls, images: ImageSet, *, ship: bool) -> SharedImages:
        """Make images that come from the cache available to workers."""
        folder = cache.folder_of(images)
        return cls(folder, (ray.put(_in_memory(images)),) if ship else ())

    def open(self) -> ImageSet:
        """The images, in memory that the processes of a node share."""
        if not self.shipped or cache.holds(self.folder):
            return cache.open_folder(self.folder)
        images: ImageSet = ray.get(self.shipped[0])
        return images


def _in_memory(images: ImageSet) -> ImageSet:
    """Plain arrays: Ray shares these without copies, memory maps it would copy to each process."""

    def plain(split: Split) -> Split:
        marks = None if split.landmarks is None else np.asarray(split.landmarks)
        return Split(np.asarray(split.images), np.asarray(split.targets), marks)

    train, val, test = map(plain, (images.train, images.val, images.test))
    return replace(images, train=train, val=val, test=test)
