"""Whether a GPU's own programs compute a stack of ViTs."""

from __future__ import annotations

import dataclasses
from functools import cache

import torch
from torch import Tensor

from vitbench.kernels import ops
from vitbench.kernels.check import agree
from vitbench.model.layout import VitShape
from vitbench.model.stacked import StackedModel
from vitbench.model.vit import StackedVit
from vitbench.rng import generator

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
    """Whether the programs agree for such a stack; found out once in a process, in seconds."""
    fits = ops.usable(device, tokens=shape.tokens, head_width=shape.width // shape.heads)
    return fits and agree("training", lambda way: _computed(shape, device, fused=way), _TOLERANCE)


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
