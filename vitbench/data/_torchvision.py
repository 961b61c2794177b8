"""The only import of torchvision, working beside a CPU build of torch, too.

torchvision wheels built against CUDA torch leave two operators undeclared beside a CPU-only
torch, and the import fails with "operator torchvision::nms does not exist". Declaring their
schemas first is enough; nothing here calls them.
"""

from __future__ import annotations

from typing import Any

import torch

_library: torch.library.Library | None = None  # declarations live as long as their library


def torchvision() -> Any:
    """Import torchvision, with the missing operators declared if need be."""
    global _library
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision
