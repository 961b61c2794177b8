"""One stack over several workers: what the engine needs to know of the others.

Each worker takes its part of every global batch, so that N workers compute what one would.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Parallel(Protocol):
    """A worker's place among the workers of a stack."""

    rank: int
    size: int

    def wrap(self, module: nn.Module) -> nn.Module:
        """Make backward average gradients over the workers."""

    def all_sum_(self, tensor: Tensor) -> Tensor:
        """Add up over the workers, in place."""

    def barrier(self) -> None:
        """Wait for all workers."""


class Solo:
    """One worker."""

    rank = 0
    size = 1

    def wrap(self, module: nn.Module) -> nn.Module:
        """Nothing to average."""
        return module

    def all_sum_(self, tensor: Tensor) -> Tensor:
        """Nothing to add."""
        return tensor

    def barrier(self) -> None:
        """Nobody to wait for."""


class TorchDistributed:
    """A worker of an initialised torch.distributed process group (nccl or gloo)."""

    def __init__(self, device: torch.device) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._device = device

    def wrap(self, module: nn.Module) -> nn.Module:
        """DistributedDataParallel: one flat parameter is one bucket, reduced once a step."""
        ids = [self._device] if self._device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            module, device_ids=ids, gradient_as_bucket_view=True
        )

    def all_sum_(self, tensor: Tensor) -> Tensor:
        """Add up over the workers, in place."""
        dist.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        """Wait for all workers."""
        dist.barrier()


SOLO = Solo()
