"""Half precision: the forward pass gets rounded copies, the parameters stay float32.

Shape legend: K members, P parameters of one member.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vitbench.model.layout import Slot, views


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
        for rounded in (True, False):  # one kernel each where all are of one type
            names = [slot.name for slot in ctx.slots if slot.rounded == rounded]
            torch._foreach_copy_([into[name] for name in names], [by_name[name] for name in names])
        return grad_KP, None
