"""The images and targets of a stack, on the device, as its members see them, and their order.

Shape legend: K members, S streams of batches (members with the same seed and the same images share
one), G groups of images to judge on, N images, B batch, C channels, Y and X pixels, O outputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitbench.config import SharedTrain
from vitbench.data import subsets
from vitbench.data.image_set import SPLITS, ImageSet, Split
from vitbench.plan import StackPlan
from vitbench.rng import generator

_T = TypeVar("_T")


class DeviceSplit:
    """One split's uint8 images and targets where the model computes.

    On CUDA both are copied once and stay; on a CPU the images are used in place, mapped or not.

    Args:
        targets_LN: targets of each distinct label among the members, int64; [1, N, O] where all
            attributes are learned at once.
        mean, std: of each channel, in units of 0 to 1.
    """

    def __init__(
        self,
        split: Split,
        targets_LN: NDArray[np.int64],
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        with warnings.catch_warnings():  # torch has no read-only tensors, and nothing writes to it
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self.images = torch.from_numpy(np.asarray(split.images)).to(device)
        self.targets_LN = torch.from_numpy(np.ascontiguousarray(targets_LN)).to(device)
        self._scale, shift = (
            torch.tensor(values, device=device, dtype=dtype).view(-1, 1, 1)
            for values in ([1.0 / (255.0 * s) for s in std], mean)
        )
        self._shift = shift * 255.0 * self._scale
        self._dtype = dtype

    def normalised(self, index_SB: Tensor) -> Tensor:
        """Gather and normalise a batch per stream: [S, B] -> [S, B, C, Y, X]."""
        pixels = self.images[index_SB.reshape(-1)].to(self._dtype)
        pixels = pixels.mul_(self._scale).sub_(self._shift)
        return pixels.view(*index_SB.shape, *self.images.shape[1:])


class Streams:
    """The streams of batches of a stack.

    Args:
        seeds, pool_names: of each member; those with the same ones share a stream.
        pools: the images that each pool may use, as indices into the split; as many for all.

    Attributes:
        of_member: stream of each member, [K].
        seeds: of each stream.
        images: of one epoch of one stream.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        pool_names: Sequence[Hashable],
        pools: Mapping[Hashable, Tensor],
    ) -> None:
        self._keys, of_member = _numbered(zip(seeds, pool_names, strict=True))
        self.of_member = tuple(of_member)
        self._pools = pools
        self.images = len(next(iter(pools.values())))
        self.seeds = [seed for seed, _ in self._keys]

    def order(self, epoch: int) -> Tensor:
        """Order of the images in an epoch, [S, N]: the same for a seed in every arm."""
        rows = []
        for seed, pool in self._keys:
            stream = generator(seed, "order", epoch)
            rows.append(self._pools[pool][torch.randperm(self.images, generator=stream)])
        return torch.stack(rows)

    def first(self, count: int) -> Tensor:
        """The first images of each stream's pool, [S, N]: always the same."""
        return torch.stack([self._pools[pool][:count] for _, pool in self._keys])


class StackData:
    """What the members of a plan train on and are judged on.

    Members may differ in label and seed.

    Attributes:
        images_per_epoch: training images of one member.
        judged_on: indices of a split's images for each group of members that share them, [G, N];
            of the training images the first `fixed_train_images`.
    """

    def __init__(
        self,
        plan: StackPlan,
        images: ImageSet,
        device: torch.device,
        dtype: torch.dtype,
        fixed_train_images: int = 0,
    ) -> None:
        members = [member.train for member in plan.members]
        distinct, label_of = _numbered(member.label for member in members)
        self._device = device
        self._label_K = torch.tensor(label_of, device=device)
        self._splits = {
            name: DeviceSplit(
                getattr(images, name),
                np.stack([_targets(images, name, label) for label in distinct]),
                images.mean,
                images.std,
                device,
                dtype,
            )
            for name in SPLITS
        }
        # Which images a member sees: all, those matched for its label, or those its seed draws.
        train = plan.shared.train
        matched_for = [member.label if train.matched else None for member in members]
        draws = train.subset == "per_seed"
        pool_names = [
            (label, member.seed if draws else None)
            for label, member in zip(matched_for, members, strict=True)
        ]
        self._streams = Streams(
            [member.seed for member in members],
            pool_names,
            {name: _pool(images, "train", train, *name) for name in dict.fromkeys(pool_names)},
        )
        judged, pool_of = _numbered(matched_for)
        # Which row of a batch's indices is a member's: its stream's, or its pool's.
        self._rows = {"train": torch.tensor(self._streams.of_member, device=device)}
        self._rows |= dict.fromkeys(("val", "test"), torch.tensor(pool_of, device=device))
        self.images_per_epoch = self._streams.images
        self.judged_on = {
            name: torch.stack([_pool(images, name, train, label, None) for label in judged]).to(
                device
            )
            for name in ("val", "test")
        }
        self.judged_on["train"] = self._streams.first(fixed_train_images).to(device)

    def order(self, epoch: int) -> Tensor:
        """Training images of every stream in the order of an epoch, [S, N]."""
        return self._streams.order(epoch).to(self._device)

    @property
    def seeds(self) -> list[int]:
        """Of each stream of training images."""
        return self._streams.seeds

    def per_member(self, values_S: Tensor) -> Tensor:
        """What belongs to a stream of training images, for each of its members, [K, ...]."""
        return values_S[self._rows["train"]]

    def batch(
        self, name: str, index_XB: Tensor, change: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pixels [K, B, C, Y, X], or [1, B, C, Y, X] where all members share them, and targets.

        The indices are a row per stream of the training images, else rows of `judged_on`. `change`
        is given the pixels of each row once, whoever shares them.
        """
        pixels = self._splits[name].normalised(index_XB)
        pixels = pixels if change is None else change(pixels)
        every = pixels[self._rows[name]] if len(index_XB) > 1 else pixels
        return every, self.targets(name, index_XB)

    def pixels(self, name: str, index_XB: Tensor) -> Tensor:
        """Normalised images, a row per row of the indices."""
        return self._splits[name].normalised(index_XB)

    def first_trained(self, count: int) -> tuple[Tensor, Tensor]:
        """Pixels and targets of the first training images of every member, as `batch`."""
        return self.batch("train", self._streams.first(count).to(self._device))

    def targets(self, name: str, index_XB: Tensor) -> Tensor:
        """Every member's own targets: [K, B], or [K, B, O] for all attributes at once."""
        index_KB = index_XB[self._rows[name]]
        return self._splits[name].targets_LN[self._label_K.unsqueeze(1), index_KB]


def _numbered(values: Iterable[_T]) -> tuple[list[_T], list[int]]:
    """The distinct values in the order in which they come, and the number of each value's."""
    every = list(values)
    distinct = list(dict.fromkeys(every))
    return distinct, [distinct.index(value) for value in every]


def _targets(images: ImageSet, name: str, label: str | None) -> NDArray[np.int64]:
    """Class numbers or one label, [N]; all attributes of a set without classes, [N, O]."""
    if label is not None:
        return images.binary_targets(name, label)
    targets: NDArray[np.int64] = getattr(images, name).targets
    return targets[:, 0] if images.classes else targets


def _pool(
    images: ImageSet, name: str, train: SharedTrain, label: str | None, seed: int | None
) -> Tensor:
    """The images of a split that members may see (see data.subsets)."""
    return torch.from_numpy(subsets.pool(images, name, train, label, seed))
