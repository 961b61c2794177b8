"""How the workers of a stack find each other on a Ray that listens on loopback alone.

Ray Train lets them meet at a store of torch's, which listens on every address of the host and has
no setting for that. On one machine a file does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import ray
import torch.distributed as dist
from ray import train
from ray.train.backend import Backend
from ray.train.torch import TorchConfig


class _Nothing(Backend):
    """Sets up no process group."""

    share_cuda_visible_devices = True  # as Ray's own for torch


@dataclass
class MeetLater(TorchConfig):
    """Leaves it to the workers to call `meet`."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _Nothing


def config(backend: str) -> TorchConfig:
    """How Ray Train shall set up a process group with this backend, on the Ray that runs."""
    here = ray.get_runtime_context().gcs_address.startswith("127.")
    return MeetLater(backend) if here else TorchConfig(backend)


def meet(backend: str, file: Path) -> None:
    """Make the process group, unless Ray Train has; `file` is one that no other group uses."""
    if dist.is_initialized():
        return
    for library in ("GLOO", "NCCL"):
        os.environ[f"{library}_SOCKET_IFNAME"] = "lo"
    context = train.get_context()
    dist.init_process_group(
        backend,
        init_method=f"file://{file}",
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
    )
