"""The GPU programs, run on a CPU by Triton's interpreter, against torch's own operations."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

os.environ["TRITON_INTERPRET"] = "1"  # read when the programs are imported

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vitbench.kernels import ops
from vitbench.rng import generator

K, IMAGES, TOKENS, HEADS, CHANNELS = 3, 5, 5, 2, 12
WIDTH, ROWS = HEADS * CHANNELS, IMAGES * TOKENS


def drawn(*shape: int, name: str = "", half: bool = False) -> Tensor:
    """Normal numbers that bfloat16 holds exactly, asking for a gradient."""
    values = torch.randn(shape, generator=generator(0, name, str(shape))).bfloat16()
    return (values if half else values.float()).requires_grad_()


def agree(
    found: Callable[..., Tensor], wanted: Callable[..., Tensor], inputs: Sequence[Tensor]
) -> None:
    """The same results and gradients, to what bfloat16 rounds away."""
    exact = [x.detach().float().requires_grad_() for x in inputs]
    result, expected = found(*inputs), wanted(*exact)
    weight = torch.randn(expected.shape, generator=generator(1))
    gradients = torch.autograd.grad((result.float() * weight).sum(), inputs)
    truth = torch.autograd.grad((expected * weight).sum(), exact)
    for one, two in zip((result, *gradients), (expected, *truth), strict=True):
        assert one.shape == two.shape
        error = (one.float() - two).norm() / two.norm()
        assert error < 0.01, error


@pytest.mark.parametrize("many_steps", [False, True])
@pytest.mark.parametrize("with_y", [False, True])
def test_add_norm(with_y: bool, many_steps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both results, the sum and its LayerNorm, are used, as in a block."""
    if many_steps:  # one program walks over all rows of a member
        monkeypatch.setattr(ops, "_WAVE", 1)
    x, gain, shift = (drawn(K, *s) for s in ((ROWS, WIDTH), (WIDTH,), (WIDTH,)))
    y, bias = drawn(K, ROWS, WIDTH, name="y", half=True), drawn(K, WIDTH, name="b", half=True)

    def found(x: Tensor, gain: Tensor, shift: Tensor, *added: Tensor) -> Tensor:
        total, normal = ops.add_norm(x, *(added or (None, None)), gain, shift)
        return total * 0.5 + normal.float()

    def wanted(x: Tensor, gain: Tensor, shift: Tensor, *added: Tensor) -> Tensor:
        if added:
            x = x + added[0] + added[1].unsqueeze(1)
        return x * 0.5 + F.layer_norm(x, (WIDTH,)) * gain.unsqueeze(1) + shift.unsqueeze(1)

    agree(found, wanted, [x, gain, shift, *([y, bias] if with_y else [])])


@pytest.mark.parametrize("many_steps", [False, True])
def test_attention(many_steps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens and channels fill no block of a power of two; images of a member share a program."""
    if many_steps:
        monkeypatch.setattr(ops, "_WAVE", 2)
    # In float16: the interpreter multiplies no matrices of bfloat16.
    qkv, bias = (drawn(K, *n, 3 * WIDTH).detach().half() for n in ((ROWS,), ()))
    qkv.requires_grad_(), bias.requires_grad_()

    def wanted(qkv: Tensor, bias: Tensor) -> Tensor:
        parts = (qkv + bias.unsqueeze(1)).view(K * IMAGES, TOKENS, 3, HEADS, CHANNELS)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) / CHANNELS**0.5).softmax(dim=-1) @ v
        return mixed.transpose(1, 2).reshape(K, ROWS, WIDTH)

    agree(lambda *x: ops.attention(*x, tokens=TOKENS, heads=HEADS), wanted, [qkv, bias])


@pytest.mark.parametrize("many_steps", [False, True])
def test_bias_gelu(many_steps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """More columns than a tile, which the last one does not fill."""
    if many_steps:
        monkeypatch.setattr(ops, "_WAVE", 1)
    x, bias = drawn(K, 70, 200, half=True), drawn(K, 200, name="b", half=True)
    agree(ops.bias_gelu, lambda x, bias: F.gelu(x + bias.unsqueeze(1)), [x, bias])


def test_matmul() -> None:
    """Its gradients are those of the product."""
    x, weight = drawn(K, ROWS, WIDTH, half=True), drawn(K, 7, WIDTH, half=True)
    agree(ops.matmul, lambda x, weight: x @ weight.transpose(1, 2), [x, weight])


@pytest.mark.parametrize("adamw", [False, True])
def test_adam_updates_what_is_alive(adamw: bool) -> None:
    """Against the rule of training.optim in torch's operations; members without life stay."""
    size, decayed, lr, eps, scale = 1500, 700, [0.1, 0.2, 0.3], 1e-3, 0.7
    flat, grad, first = (drawn(K, size, name=name).detach() for name in ("w", "g", "m"))
    second, alive = drawn(K, size, name="v").detach() ** 2, torch.tensor([True, False, True])
    decay, before = [0.1, 0.1, 0.0], [flat.clone(), first.clone(), second.clone()]
    wanted = [tensor.clone() for tensor in before]
    for k in (0, 2):
        weight, slope = wanted[0][k], grad[k].clone()
        if adamw:
            weight[:decayed] *= 1.0 - 0.5 * lr[k] * decay[k]
        else:
            slope[:decayed] += decay[k] * weight[:decayed]
        wanted[1][k] = 0.9 * wanted[1][k] + 0.1 * slope
        wanted[2][k] = 0.999 * wanted[2][k] + 0.001 * slope**2
        weight -= 0.5 * lr[k] * scale * wanted[1][k] / (wanted[2][k].sqrt() + eps)
    grad[1] = float("nan")
    ops.adam_(
        flat,
        grad,
        (first, second),
        lr_K=torch.tensor(lr),
        decay_K=torch.tensor(decay),
        alive_K=alive,
        factors=torch.tensor([0.5, scale, eps]),
        decayed=decayed,
        betas=(0.9, 0.999),
        adamw=adamw,
    )
    for one, two, old in zip((flat, first, second), wanted, before, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
        assert torch.equal(one[1], old[1])
