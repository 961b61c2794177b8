"""Training images changed in one pass on the device, by draws that a seed and an epoch name.

The draws of an epoch are made at its start, for every image in the order of the epoch: they are the
same in every arm, whatever the stack and however many workers, and after a resume.

Shape legend: S streams of batches, N images of an epoch, B batch, C channels, Y and X pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitbench.config.models import Augment
from vitbench.rng import generator


class Augmentation:
    """The draws of one epoch.

    Args:
        settings: what is done.
        seeds: of each stream.
        epoch: from 1.
        images: of one epoch of one stream.
        batch_size: images of a step, those of other workers included.
        image_size: pixels per side.

    Attributes:
        lam_SN: with mixup, by how much each image stays itself, the same in a batch; else None.
    """

    def __init__(
        self,
        settings: Augment,
        seeds: Sequence[int],
        epoch: int,
        *,
        images: int,
        batch_size: int,
        image_size: int,
        device: torch.device,
    ) -> None:
        self._settings, self._size = settings, image_size
        tables: dict[str, list[NDArray[Any]]] = {
            n: [] for n in ("move", "flip", "hole", "pair", "lam")
        }
        starts = range(0, images, batch_size)
        for seed in seeds:
            # numpy's generators draw the same on every device; each use has its own.
            def rng(use: str, seed: int = seed) -> np.random.Generator:
                named = generator(seed, "augment", use, epoch)
                return np.random.default_rng(named.initial_seed())

            shift = settings.shift
            tables["move"].append(rng("shift").integers(-shift, shift + 1, (images, 2)))
            tables["flip"].append(rng("flip").random(images) < (0.5 if settings.flip else 0.0))
            tables["hole"].append(rng("cutout").integers(0, image_size, (images, 2)))
            pairs, sizes = rng("mixup"), [min(batch_size, images - start) for start in starts]
            order = [s + pairs.permutation(n) for s, n in zip(starts, sizes, strict=True)]
            alpha = settings.mixup or 1.0
            lam = rng("lambda").beta(alpha, alpha, len(sizes))
            tables["pair"].append(np.concatenate(order))
            tables["lam"].append(np.repeat(lam, sizes))
        on_device = {
            name: torch.from_numpy(np.stack(rows)).to(device) for name, rows in tables.items()
        }
        self._move_SN2, self._flip_SN = on_device["move"], on_device["flip"]
        self._hole_SN2, self._pair_SN = on_device["hole"], on_device["pair"]
        self.lam_SN = on_device["lam"] if settings.mixup else None
        self._at = torch.arange(image_size, device=device)

    def partners(self, rows_B: Tensor) -> Tensor:
        """Where in the order of the epoch the images stand that these are mixed with, [S, B]."""
        return self._pair_SN[:, rows_B]

    def __call__(self, pixels_SBCYX: Tensor, rows_SB: Tensor) -> Tensor:
        """Move, mirror and blank normalised images that stand at these places of the epoch."""
        if self._settings.shift or self._settings.flip:
            move_SB2 = self._drawn(self._move_SN2, rows_SB)
            flip_SB1 = self._drawn(self._flip_SN, rows_SB).unsqueeze(-1)
            last = self._size - 1
            y_SBY = (self._at + move_SB2[..., :1]).clamp(0, last)
            x_SBX = (self._at + move_SB2[..., 1:]).clamp(0, last)
            x_SBX = torch.where(flip_SB1, last - x_SBX, x_SBX)
            pixels_SBCYX = pixels_SBCYX.take_along_dim(y_SBY[:, :, None, :, None], 3)
            pixels_SBCYX = pixels_SBCYX.take_along_dim(x_SBX[:, :, None, None, :], 4)
        if side := self._settings.cutout:
            corner_SB2 = self._drawn(self._hole_SN2, rows_SB) - side // 2
            y_SBY, x_SBX = (self._at - corner_SB2[..., n : n + 1] for n in (0, 1))
            inside_y, inside_x = ((at >= 0) & (at < side) for at in (y_SBY, x_SBX))
            hole = inside_y[:, :, None, :, None] & inside_x[:, :, None, None, :]
            pixels_SBCYX = pixels_SBCYX.masked_fill(hole, 0.0)  # the data set's mean
        return pixels_SBCYX

    @staticmethod
    def _drawn(table_SN: Tensor, rows_SB: Tensor) -> Tensor:
        streams = torch.arange(len(table_SN), device=table_SN.device).unsqueeze(1)
        return table_SN[streams, rows_SB]
