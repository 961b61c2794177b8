"""One stack over several workers: what the engine needs to know of the others.

Each worker takes its part of every global batch, so that N workers compute what one would.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Parallel:
    """A worker's place among the workers of a stack; this one works alone."""

    rank = 0  # rank 0 alone reports and writes
    size = 1

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module whose backward pass averages gradients over the workers."""
        return module

    def all_sum_(self, tensor: Tensor) -> Tensor:
        """The tensor's sum over the workers, in place."""
        return tensor

    def barrier(self) -> None:
        """Return when all workers have come here."""


class TorchDistributed(Parallel):
    """A worker of an initialised torch.distributed process group (nccl or gloo)."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._device_ids = [device] if device.type == "cuda" else None

    def wrap(self, module: nn.Module) -> nn.Module:
        """One flat parameter is one bucket, reduced once a step."""
        return nn.parallel.DistributedDataParallel(
            module, device_ids=self._device_ids, gradient_as_bucket_view=True
        )

    def all_sum_(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        dist.barrier()


SOLO = Parallel()
