"""Steps of a Transformer block for K members at once, each as one GPU program and its gradient.

Shape legend: K members, N rows (images x tokens), I inputs, O outputs, D width, E = 3 D, M hidden
width of the MLP.

They compute what `model.layers` computes with torch's own operations, rounded to the type of the
matrix products in the same places. `matmul` is torch's own; its gradient comes in the layout in
which the weights lie.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_EPS = 1e-5  # torch's LayerNorm
_TILE = 4096  # values that one program holds at once
_WAVE = 528  # programs that a large GPU runs at once, about; sums over rows have as many parts
_LARGEST = 128  # tokens, and channels of a head, that one program can hold
# Rows and columns of a tile of the MLP's hidden layer.
_GELU_ROWS, _GELU_WIDTH = 16, 128
_ADAM_BLOCK = 1024


@cache
def installed() -> bool:
    """Whether Triton is there; it comes with torch's builds for GPUs."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def usable(device: torch.device, *, tokens: int, head_width: int) -> bool:
    """Whether blocks of this shape can be computed there: on a GPU, with few enough tokens."""
    return device.type == "cuda" and max(tokens, head_width) <= _LARGEST and installed()


def matmul(x_KNI: Tensor, weight_KOI: Tensor) -> Tensor:
    """Each member's matrix product, [K, N, O], without a bias."""
    product: Tensor = _Matmul.apply(x_KNI, weight_KOI)  # type: ignore[no-untyped-call]
    return product


def add_norm(
    x_KND: Tensor,
    y_KND: Tensor | None,
    bias_KD: Tensor | None,
    gain_KD: Tensor,
    shift_KD: Tensor,
    *,
    exact: bool = False,
) -> tuple[Tensor, Tensor]:
    """x + y + bias in float32, and LayerNorm of it in bfloat16, or in float32 where it is `exact`.

    Without y (and bias) it is x itself that is normalised and handed on.
    """
    given = x_KND, y_KND, bias_KD, gain_KD, shift_KD
    total: Tensor
    normal: Tensor
    total, normal = _AddNorm.apply(*given, exact)  # type: ignore[no-untyped-call]
    return total, normal


def attention(qkv_KNE: Tensor, bias_KE: Tensor, *, tokens: int, heads: int) -> Tensor:
    """softmax(Q K^T / sqrt(C)) V of every image and head, [K, N, D]; the bias is added first."""
    mixed: Tensor = _Attention.apply(qkv_KNE, bias_KE, tokens, heads)  # type: ignore[no-untyped-call]
    return mixed


def bias_gelu(x_KNM: Tensor, bias_KM: Tensor) -> Tensor:
    """GELU (by the error function) of x + bias, [K, N, M]."""
    bent: Tensor = _BiasGelu.apply(x_KNM, bias_KM)  # type: ignore[no-untyped-call]
    return bent


def adam_(
    flat_KP: Tensor,
    grad_KP: Tensor,
    moments: tuple[Tensor, Tensor],
    *,
    lr_K: Tensor,
    decay_K: Tensor,
    alive_K: Tensor,
    factors: Tensor,
    decayed: int,
    betas: tuple[float, float],
    adamw: bool,
) -> None:
    """One update of RAdam (rectified) or AdamW; see training.optim, which knows the rules."""
    from vitbench.kernels import programs

    members, size = flat_KP.shape
    grid = (_blocks(size, _ADAM_BLOCK), members)
    programs.adam[grid](
        *(flat_KP, grad_KP, *moments, lr_K, decay_K, alive_K, factors, size, decayed),
        **{"BETA1": betas[0], "BETA2": betas[1], "ADAMW": adamw, "BLOCK": _ADAM_BLOCK},
    )


class _Matmul(Function):
    @staticmethod
    def forward(ctx: Any, x_KNI: Tensor, weight_KOI: Tensor) -> Tensor:
        ctx.save_for_backward(x_KNI, weight_KOI)
        return torch.bmm(x_KNI, weight_KOI.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, grad_KNO: Tensor) -> tuple[Tensor, Tensor]:
        x_KNI, weight_KOI = ctx.saved_tensors
        return torch.bmm(grad_KNO, weight_KOI), torch.bmm(grad_KNO.transpose(1, 2), x_KNI)


class _AddNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_KND: Tensor,
        y_KND: Tensor | None,
        bias_KD: Tensor | None,
        gain_KD: Tensor,
        shift_KD: Tensor,
        exact: bool,
    ) -> tuple[Tensor, Tensor]:
        from vitbench.kernels import programs

        ctx.set_materialize_grads(False)
        members, rows, width = x_KND.shape
        has_y = y_KND is not None
        total = torch.empty_like(x_KND) if has_y else x_KND
        normal = torch.empty_like(x_KND, dtype=torch.float32 if exact else torch.bfloat16)
        mean, rstd = x_KND.new_empty(2, members, rows).unbind(0)
        wide, high = _tile(width)
        bias_row = 0 if bias_KD is None else bias_KD.stride(0)
        programs.add_norm_forward[(_blocks(rows, high), members)](
            *(x_KND, y_KND, bias_KD, gain_KD, shift_KD, total, normal, mean, rstd),
            *(rows, width, bias_row, gain_KD.stride(0), _EPS),
            **{"HAS_Y": has_y, "ROWS": high, "WIDTH": wide},
        )
        ctx.save_for_backward(total, mean, rstd, gain_KD)
        ctx.y = None if y_KND is None else y_KND.dtype
        return total, normal

    @staticmethod
    def backward(ctx: Any, total_grad: Tensor | None, normal_grad: Tensor) -> tuple[Any, ...]:
        from vitbench.kernels import programs

        total, mean, rstd, gain_KD = ctx.saved_tensors
        normal_grad = normal_grad.contiguous()
        members, rows, width = total.shape
        has_y = ctx.y is not None
        total_grad = None if total_grad is None else total_grad.contiguous()
        x_grad = torch.empty_like(total)
        y_grad = torch.empty_like(total, dtype=ctx.y) if has_y else None
        wide, high = _tile(width)
        steps = _steps(_blocks(rows, high) * members)
        count = _blocks(rows, high * steps)
        part = total.new_empty(members, count, 3, width)
        programs.add_norm_backward[(count, members)](
            *(total, mean, rstd, gain_KD, normal_grad, total_grad, x_grad, y_grad, part),
            *(rows, width, gain_KD.stride(0)),
            HAS_Y=has_y,
            HAS_TOTAL=total_grad is not None,
            ROWS=high,
            WIDTH=wide,
            STEPS=steps,
        )
        gain_grad, shift_grad, bias_grad = part.sum(dim=1).unbind(1)
        bias_grad = bias_grad.to(ctx.y) if has_y else None
        return x_grad, y_grad, bias_grad, gain_grad, shift_grad, None


class _Attention(Function):
    @staticmethod
    def forward(ctx: Any, qkv_KNE: Tensor, bias_KE: Tensor, tokens: int, heads: int) -> Tensor:
        from vitbench.kernels import programs

        members, rows, wide = qkv_KNE.shape
        images, channels = rows // tokens, wide // (3 * heads)
        mixed = qkv_KNE.new_empty(members, rows, wide // 3)
        sizes = images, tokens, heads, channels, bias_KE.stride(0), channels**-0.5
        blocks = {"TOKENS": _power(tokens), "CHANNELS": _power(channels)}
        programs.attention_forward[(members * images, heads)](
            qkv_KNE, bias_KE, mixed, *sizes, **blocks
        )
        ctx.save_for_backward(qkv_KNE, bias_KE)
        ctx.sizes, ctx.blocks = sizes, blocks
        return mixed

    @staticmethod
    def backward(ctx: Any, grad_KND: Tensor) -> tuple[Any, ...]:
        from vitbench.kernels import programs

        qkv_KNE, bias_KE = ctx.saved_tensors
        members, images, heads = len(qkv_KNE), ctx.sizes[0], ctx.sizes[2]
        steps = _steps(members * images * heads)
        count = _blocks(images, steps)
        qkv_grad = torch.empty_like(qkv_KNE)
        part = qkv_KNE.new_empty(members, count, qkv_KNE.shape[2], dtype=torch.float32)
        programs.attention_backward[(count, heads, members)](
            *(qkv_KNE, bias_KE, grad_KND.contiguous(), qkv_grad, part, *ctx.sizes),
            **ctx.blocks,
            IMAGES=steps,
        )
        return qkv_grad, part.sum(dim=1).to(bias_KE.dtype), None, None


class _BiasGelu(Function):
    @staticmethod
    def forward(ctx: Any, x_KNM: Tensor, bias_KM: Tensor) -> Tensor:
        from vitbench.kernels import programs

        members, rows, width = x_KNM.shape
        bent = torch.empty_like(x_KNM)
        grid = (_blocks(rows, _GELU_ROWS), _blocks(width, _GELU_WIDTH), members)
        programs.bias_gelu_forward[grid](
            *(x_KNM, bias_KM, bent, rows, width, bias_KM.stride(0)),
            **{"ROWS": _GELU_ROWS, "WIDTH": _GELU_WIDTH},
        )
        ctx.save_for_backward(x_KNM, bias_KM)
        return bent

    @staticmethod
    def backward(ctx: Any, grad_KNM: Tensor) -> tuple[Tensor, Tensor]:
        from vitbench.kernels import programs

        x_KNM, bias_KM = ctx.saved_tensors
        members, rows, width = x_KNM.shape
        across = _blocks(width, _GELU_WIDTH)
        steps = _steps(_blocks(rows, _GELU_ROWS) * across * members)
        count = _blocks(rows, _GELU_ROWS * steps)
        x_grad = torch.empty_like(x_KNM)
        part = x_KNM.new_empty(members, count, width, dtype=torch.float32)
        programs.bias_gelu_backward[(count, across, members)](
            *(x_KNM, bias_KM, grad_KNM, x_grad, part, rows, width, bias_KM.stride(0)),
            **{"ROWS": _GELU_ROWS, "WIDTH": _GELU_WIDTH, "STEPS": steps},
        )
        return x_grad, part.sum(dim=1).to(bias_KM.dtype)


def _tile(width: int) -> tuple[int, int]:
    """Columns that hold a row, and rows, of one program's tile."""
    wide = _power(width)
    return wide, max(1, min(16, _TILE // wide))


def _steps(tiles: int) -> int:
    """Tiles of one program, a power of two, so that the programs fill a GPU about twice."""
    steps = 1
    while tiles > 2 * _WAVE * 2 * steps:
        steps *= 2
    return steps


def _power(count: int) -> int:
    """The power of two that holds so many, 16 at least: the least side of a matrix product."""
    return max(16, 1 << (count - 1).bit_length())


def _blocks(count: int, size: int) -> int:
    return -(-count // size)
