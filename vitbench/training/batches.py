"""Which images each member sees, and in which order.

Shape legend: K members, S streams of batches (members with the same seed and the same images
share one), N images, B batch, C channels, Y and X pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vitbench.data.image_set import Split
from vitbench.rng import generator


class DeviceSplit:
    """One split's uint8 images and targets where the model computes.

    On CUDA both are copied once and stay. On a CPU the images are used in place, memory-mapped or
    not.

    Args:
        split: images [N, C, Y, X] and targets.
        targets_LN: targets of each distinct label among the members, int64; [1, N, O] where all
            attributes are learned at once.
        mean, std: of each channel, in units of 0 to 1.
    """

    def __init__(
        self,
        split: Split,
        targets_LN: np.ndarray,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        with warnings.catch_warnings():  # torch has no read-only tensors, and nothing writes to it
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self.images = torch.from_numpy(np.asarray(split.images)).to(device)
        self.targets_LN = torch.from_numpy(np.ascontiguousarray(targets_LN)).to(device)
        self._shift = torch.tensor(mean, device=device, dtype=dtype).view(-1, 1, 1)
        self._scale = torch.tensor([1.0 / (255.0 * s) for s in std], device=device, dtype=dtype)
        self._scale = self._scale.view(-1, 1, 1)
        self._shift = self._shift * 255.0 * self._scale
        self._dtype = dtype

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def normalised(self, index_SB: Tensor) -> Tensor:
        """Gather and normalise a batch per stream: [S, B] -> [S, B, C, Y, X]."""
        pixels = self.images[index_SB.reshape(-1)].to(self._dtype)
        pixels = pixels.mul_(self._scale).sub_(self._shift)
        return pixels.view(*index_SB.shape, *self.images.shape[1:])


@dataclass(frozen=True)
class Streams:
    """The streams of batches of a stack.

    Attributes:
        keys: seed and pool of each stream.
        of_member: stream of each member, [K].
        pools: the images that each pool may use, as indices into the split.
    """

    keys: tuple[tuple[int, str | None], ...]
    of_member: tuple[int, ...]
    pools: Mapping[str | None, Tensor]

    @classmethod
    def build(
        cls,
        seeds: Sequence[int],
        pool_names: Sequence[str | None],
        pools: Mapping[str | None, Tensor],
    ) -> Streams:
        """Share a stream between members with the same seed and pool."""
        wanted = list(zip(seeds, pool_names, strict=True))
        keys = tuple(dict.fromkeys(wanted))
        return cls(keys, tuple(keys.index(key) for key in wanted), pools)

    @property
    def images(self) -> int:
        """Images of one epoch of one stream; the same for all."""
        return int(next(iter(self.pools.values())).shape[0])

    def order(self, epoch: int) -> Tensor:
        """Order of the images in an epoch, [S, N]: the same for a seed in every arm."""
        rows = []
        for seed, pool in self.keys:
            stream = generator(seed, "order", epoch)
            rows.append(self.pools[pool][torch.randperm(self.images, generator=stream)])
        return torch.stack(rows)
