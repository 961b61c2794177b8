"""Whether a GPU's own programs compute a stack: only where they were seen to agree with torch."""

from __future__ import annotations

import dataclasses
import logging
from functools import cache

import torch
from torch import Tensor

from vitbench.errors import in_a_line
from vitbench.kernels import ops
from vitbench.model.layout import VitShape
from vitbench.model.stacked import StackedModel
from vitbench.model.vit import StackedVit
from vitbench.rng import generator

logger = logging.getLogger(__name__)

# Of a small stack: enough to run every program, and both ends of the chain of blocks.
_MEMBERS, _IMAGES, _DEPTH = 2, 3, 2
# Relative distance of the logits, and of the gradient of each tensor, from those of torch's
# operations. Rounding to bfloat16 makes 0.01 to 0.03 of it; what is wrong is wrong by more.
_TOLERANCE = 0.1


def choose_kernels(model: StackedModel) -> None:
    """Let the GPU's own programs compute a rounded stack of ViTs where they can be trusted."""
    if isinstance(model, StackedVit) and model.rounded:
        small = dataclasses.replace(model.shape, depth=min(_DEPTH, model.shape.depth))
        model.fused = _agree(small, model.flat.device)


@cache
def _agree(shape: VitShape, device: torch.device) -> bool:
    """Whether the programs can be built on this device and compute what torch's operations do.

    Found out once in a process for each shape, in seconds: Triton needs a C compiler, and nothing
    is trained by a program that was not compared on the very device.
    """
    if not ops.usable(device, tokens=shape.tokens, head_width=shape.width // shape.heads):
        return False
    try:
        usual, found = (_computed(shape, device, fused=fused) for fused in (False, True))
    except torch.OutOfMemoryError:
        raise
    except Exception as failure:  # whatever a compiler may throw; torch's operations go on
        logger.warning("training by torch's own operations, slower: %s", in_a_line(failure))
        return False
    errors = {
        name: float((found[name] - tensor).norm() / tensor.norm()) for name, tensor in usual.items()
    }
    wrong = {name: error for name, error in errors.items() if not error < _TOLERANCE}  # or NaN
    for name, error in list(wrong.items())[:1]:
        logger.warning(
            "training by torch's own operations, slower: the GPU programs are off in %s by %.2g of "
            "its norm",
            name,
            error,
        )
    return not wrong


def _computed(shape: VitShape, device: torch.device, *, fused: bool) -> dict[str, Tensor]:
    """Logits and, by tensor, the gradient of their sum of squares; always of the same stack."""
    with torch.inference_mode(False), torch.enable_grad():
        model = StackedVit(dataclasses.replace(shape, dropout=0.0), _MEMBERS, rounded=True)
        model.initialise(range(_MEMBERS))
        model.to(device)
        model.fused = fused
        size = (_MEMBERS, _IMAGES, shape.channels, shape.image_size, shape.image_size)
        logits = model(torch.randn(size, generator=generator(0, "check")).to(device))
        (grad_KP,) = torch.autograd.grad(logits.square().sum(), model.flat)
        return {"the logits": logits.detach()} | model.tensors(grad_KP)
