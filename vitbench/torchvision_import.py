"""Imports of torchvision, ours and others', working beside a CPU build of torch, too.

torchvision wheels built against CUDA torch leave two operators undeclared beside a CPU-only
torch, and the import fails with "operator torchvision::nms does not exist". Declaring their
schemas first is enough; nothing here calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Made = TypeVar("Made")
_library: Any = None  # of torch; declarations live as long as their library


def torchvision() -> Any:
    """Import torchvision, with the missing operators declared if need be."""

    def imported() -> Any:
        import torchvision

        return torchvision

    return with_torchvision(imported)


def with_torchvision(call: Callable[[], Made]) -> Made:
    """Call what imports torchvision, perhaps by way of another package; once more where needed."""
    global _library
    try:
        return call()
    except RuntimeError as error:
        if "torchvision::nms" not in str(error) or _library is not None:
            raise
    import torch  # loaded by then: who only reads results must not wait for it

    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return call()
