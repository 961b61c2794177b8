"""The blocks of a stack of Vision Transformers on a GPU, a few launches each (see `kernels.ops`).

Shape legend: K members, B batch, T tokens, D width.

What `StackedVit.block` computes with torch's operations in about 90 launches forward and backward
(an H200's profile) takes 8 and 20.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vitbench.kernels import ops
from vitbench.model.layout import VitShape


def encode(
    w: dict[str, Tensor], x_KND: Tensor, shape: VitShape, cls: Callable[[Tensor], Tensor]
) -> Tensor:
    """All blocks and the last LayerNorm: [K, B * T, D] -> the CLS tokens, [K, B, D].

    Args:
        w: the weights, matrices in bfloat16.
        x_KND: embedded tokens, in float32.
        cls: takes the CLS tokens out of all; only they go on after the last attention.
    """
    total, y, bias = x_KND.contiguous(), None, None
    for number in range(shape.depth):
        block = {name: w[f"blocks.{number}.{name}"] for name in _PARTS}
        norm1, norm2 = ((block[f"{n}.weight"], block[f"{n}.bias"]) for n in ("norm1", "norm2"))
        total, y = ops.add_norm(total, y, bias, *norm1)
        y = ops.matmul(y, block["qkv.weight"])
        y = ops.attention(y, block["qkv.bias"], tokens=shape.tokens, heads=shape.heads)
        if number == shape.depth - 1:
            total, y = cls(total).contiguous(), cls(y)
        total, y = ops.add_norm(
            total, ops.matmul(y, block["out.weight"]), block["out.bias"], *norm2
        )
        y = ops.bias_gelu(ops.matmul(y, block["mlp1.weight"]), block["mlp1.bias"])
        y, bias = ops.matmul(y, block["mlp2.weight"]), block["mlp2.bias"]
    _, normal = ops.add_norm(total, y, bias, w["norm.weight"], w["norm.bias"], exact=True)
    return normal


_PARTS = [
    f"{layer}.{what}"
    for layer in ("norm1", "qkv", "out", "norm2", "mlp1", "mlp2")
    for what in ("weight", "bias")
]
