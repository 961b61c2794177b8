"""The tensors of one Vision Transformer, and where they lie in a member's row of parameters.

In half precision the forward pass gets rounded copies; the parameters stay float32.

Shape legend: K members, P parameters of one member, X columns of the flat parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class VitShape:
    """Everything that decides the parameters' shapes and first values, and the dropout rate."""

    image_size: int
    channels: int
    patch_grid: int
    depth: int
    heads: int
    width: int
    mlp: int
    outputs: int
    dropout: float = 0.0
    init: str = "paper"  # or "timm", "timm_weights"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={self.width}")
        if self.image_size % self.patch_grid:
            raise ValueError(
                f"patch_grid={self.patch_grid} does not divide image_size={self.image_size}"
            )

    @property
    def patch_px(self) -> int:
        """Side of a patch in pixels."""
        return self.image_size // self.patch_grid

    @property
    def tokens(self) -> int:
        """Patches and the CLS token."""
        return self.patch_grid**2 + 1


@dataclass(frozen=True)
class Slot:
    """One tensor of a member inside the flat parameter."""

    name: str
    shape: tuple[int, ...]
    decay: bool  # weight decay applies to matrices, not to biases, norms and embeddings
    init: str  # as in the paper: "uniform01", "ones", "zeros", or "fan_in:<inputs>"

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def rounded(self) -> bool:
        """Whether half precision rounds it: every affine map but the classifier."""
        return self.init.startswith("fan_in") and not self.name.startswith("head.")


def layout(shape: VitShape) -> list[Slot]:
    """The member's tensors in the order in which they lie; those with weight decay come first."""
    width, patch = shape.width, shape.channels * shape.patch_px**2
    slots = []

    def affine(name: str, inputs: int, outputs: int) -> None:
        slots.append(Slot(f"{name}.weight", (outputs, inputs), True, f"fan_in:{inputs}"))
        slots.append(Slot(f"{name}.bias", (outputs,), False, f"fan_in:{inputs}"))

    def norm(name: str) -> None:
        slots.append(Slot(f"{name}.weight", (width,), False, "ones"))
        slots.append(Slot(f"{name}.bias", (width,), False, "zeros"))

    affine("patch", patch, width)
    slots.append(Slot("cls", (width,), False, "uniform01"))
    slots.append(Slot("position", (shape.tokens, width), False, "uniform01"))
    for number in range(shape.depth):
        block = f"blocks.{number}"
        norm(f"{block}.norm1")
        affine(f"{block}.qkv", width, 3 * width)
        affine(f"{block}.out", width, width)
        norm(f"{block}.norm2")
        affine(f"{block}.mlp1", width, shape.mlp)
        affine(f"{block}.mlp2", shape.mlp, width)
    norm("norm")
    affine("head", width, shape.outputs)
    return sorted(slots, key=lambda slot: not slot.decay)


def views(flat_KX: Tensor, slots: Sequence[Slot]) -> dict[str, Tensor]:
    """Views of the slots that lie in [K, X] one after the other, by name, each [K, ...]."""
    parts = flat_KX.split([slot.size for slot in slots], dim=1)
    return {
        slot.name: part.view(flat_KX.shape[0], *slot.shape)
        for slot, part in zip(slots, parts, strict=True)
    }


def rounded_tensors(flat_KP: Tensor, slots: Sequence[Slot]) -> dict[str, Tensor]:
    """Tensors by name: affine maps in bfloat16, what `Slot.rounded` excludes as it is.

    All matrices are rounded at once, and their gradients come back at once; autocast would round
    each by itself, with hundreds of small kernels a step.
    """
    tensors = _Round.apply(flat_KP, slots)  # type: ignore[no-untyped-call]
    return {slot.name: tensor for slot, tensor in zip(slots, tensors, strict=True)}


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flat_KP: Tensor, slots: Sequence[Slot]) -> tuple[Tensor, ...]:
        ctx.slots, ctx.shape = slots, flat_KP.shape
        first = next(n for n, slot in enumerate(slots) if not (slot.rounded and slot.decay))
        matrices, rest = slots[:first], slots[first:]  # most of the values, and the few others
        columns = sum(slot.size for slot in matrices)
        rounded = views(flat_KP[:, :columns].bfloat16(), matrices)
        rounded |= views(flat_KP[:, columns:].bfloat16(), rest)
        exact = views(flat_KP[:, columns:].clone(), rest)
        return tuple((rounded if slot.rounded else exact)[slot.name] for slot in slots)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad_KP = torch.empty(ctx.shape, device=grads[0].device)
        into = views(grad_KP, ctx.slots)
        by_name = {slot.name: grad for slot, grad in zip(ctx.slots, grads, strict=True)}
        for rounded in (True, False):  # all of one type
            pairs = [(into[s.name], by_name[s.name]) for s in ctx.slots if s.rounded == rounded]
            if grad_KP.is_cuda:  # one kernel for all, if each lies dense in memory
                pairs = [(to[k], grad[k]) for to, grad in pairs for k in range(len(to))]
            torch._foreach_copy_([to for to, _ in pairs], [grad for _, grad in pairs])
        return grad_KP, None
