"""The images and targets of a stack, on the device, as its members see them.

Shape legend: K members, S streams of batches, G groups of images to judge on, N images, B batch,
O outputs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vitbench.data.image_set import ImageSet, Split
from vitbench.plan import StackPlan
from vitbench.training.batches import DeviceSplit, Streams


class StackData:
    """What the members of a plan train on and are judged on.

    Args:
        plan: the members; they may differ in label and seed.
        images: already cut to the sizes that the plan asks for.
        device: where batches are gathered.
        dtype: of the pixels.
        fixed_train_images: training images to be judged on as well, the first of each group.

    Attributes:
        judged_on: indices of a split's images for each group of members that share them, [G, N].
    """

    def __init__(
        self,
        plan: StackPlan,
        images: ImageSet,
        device: torch.device,
        dtype: torch.dtype,
        fixed_train_images: int = 0,
    ) -> None:
        labels = [member.train.label for member in plan.members]
        distinct = list(dict.fromkeys(labels))
        self._device = device
        self._label_K = torch.tensor([distinct.index(label) for label in labels], device=device)
        self._splits = {
            name: DeviceSplit(
                getattr(images, name),
                np.stack([_targets(images, name, label) for label in distinct]),
                images.mean,
                images.std,
                device,
                dtype,
            )
            for name in ("train", "val", "test")
        }
        # Which images a member sees: all, or those that are matched for its label.
        matched = plan.shared.train.matched
        pool_names = [member.train.label if matched else None for member in plan.members]
        pools = list(dict.fromkeys(pool_names))
        self._pool_K = torch.tensor([pools.index(name) for name in pool_names], device=device)
        of_split = {
            name: [_pool(images, name, label, matched) for label in pools] for name in self._splits
        }
        self._streams = Streams.build(
            [member.train.seed for member in plan.members],
            pool_names,
            dict(zip(pools, of_split["train"], strict=True)),
        )
        self._stream_K = torch.tensor(self._streams.of_member, device=device)
        self.judged_on = {name: torch.stack(of_split[name]).to(device) for name in of_split}
        self._train_GN = self.judged_on["train"]
        self.judged_on["train"] = self._train_GN[:, :fixed_train_images]

    @property
    def images_per_epoch(self) -> int:
        """Training images of one member in one epoch."""
        return self._streams.images

    def order(self, epoch: int) -> Tensor:
        """Training images of every stream in the order of an epoch, [S, N]."""
        return self._streams.order(epoch).to(self._device)

    def trained(self, index_SB: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels and targets of a training batch (see `_batch`)."""
        return self._batch("train", index_SB, self._stream_K)

    def first_trained(self, count: int) -> tuple[Tensor, Tensor]:
        """Pixels and targets of the first training images of every group (see `_batch`)."""
        return self._batch("train", self._train_GN[:, :count], self._pool_K)

    def judged(self, name: str, index_GB: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels and targets of a batch of `judged_on` (see `_batch`)."""
        return self._batch(name, index_GB, self._pool_K)

    def _batch(self, name: str, index_XB: Tensor, row_K: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [K, B, C, Y, X], or [1, B, C, Y, X] where all members share them, and targets.

        The targets are every member's own: [K, B], or [K, B, O] for all attributes at once.
        """
        split = self._splits[name]
        targets = split.targets_LN[self._label_K.unsqueeze(1), index_XB[row_K]]
        pixels = split.normalised(index_XB)
        return pixels[row_K] if index_XB.shape[0] > 1 else pixels, targets


def _targets(images: ImageSet, name: str, label: str | None) -> np.ndarray:
    """Class numbers or one label, [N]; all attributes of a set without classes, [N, O]."""
    split: Split = getattr(images, name)
    if label is not None:
        return images.binary_targets(name, label)
    targets = split.targets[:, 0] if images.classes else split.targets
    return np.asarray(targets, dtype=np.int64)


def _pool(images: ImageSet, name: str, label: str | None, matched: int | None) -> Tensor:
    """The images of a split that members may see: all, or those that are matched for a label."""
    if label is None or matched is None:
        return torch.arange(len(getattr(images, name)))
    return torch.from_numpy(images.matched(name, label, matched))
