"""The blocks made of GPU programs, run by Triton's interpreter, against `StackedVit`'s own."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"  # read when the programs are imported

import pytest
import torch
from torch import Tensor

from vitbench.kernels import ops
from vitbench.model import layers
from vitbench.model.layout import VitShape
from vitbench.model.vit import StackedVit
from vitbench.rng import generator

SHAPE = VitShape(
    image_size=8, channels=2, patch_grid=2, depth=3, heads=2, width=12, mlp=20, outputs=5
)


def by_torch(qkv_KNE: Tensor, bias_KE: Tensor, *, tokens: int, heads: int) -> Tensor:
    """Stands for the program, which the interpreter cannot run in bfloat16 (see test_ops)."""
    parts = layers.split_heads(qkv_KNE + bias_KE.unsqueeze(1), tokens, heads, parts=3)
    return layers.merge_heads(layers.attention(*parts).to(qkv_KNE.dtype), len(qkv_KNE))


@pytest.mark.parametrize("members", [1, 3])
def test_logits_and_gradients_are_those_of_the_usual_way(
    members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every tensor: about as near to float32's as the usual way in bfloat16 is, which rounds
    queries, keys and values once, not twice.
    """
    x = torch.randn(members, 4, 2, 8, 8, generator=generator(0))
    weight = torch.randn(members, 4, SHAPE.outputs, generator=generator(1))
    monkeypatch.setattr(ops, "attention", by_torch)

    def computed(*, rounded: bool, fused: bool) -> dict[str, Tensor]:
        model = StackedVit(SHAPE, members, rounded=rounded)
        model.fused = fused
        model.initialise(range(members))
        logits = model(x)
        (grad,) = torch.autograd.grad((logits * weight).sum(), model.flat)
        return {"logits": logits.detach(), **model.tensors(grad)}

    exact = computed(rounded=False, fused=False)
    usual, found = computed(rounded=True, fused=False), computed(rounded=True, fused=True)
    assert not torch.equal(usual["logits"], found["logits"])  # two ways indeed
    for name, truth in exact.items():
        errors = [float((way[name] - truth).norm() / truth.norm()) for way in (usual, found)]
        assert errors[1] < max(2.5 * errors[0], 0.01), (name, errors)
