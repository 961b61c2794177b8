"""The forward pass in bfloat16 against float32 and against torch's own autocast."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from reference import Vit
from torch import Tensor

from vitbench.model.layout import VitShape
from vitbench.model.vit import StackedVit
from vitbench.rng import generator

SHAPE = VitShape(
    image_size=8, channels=2, patch_grid=2, depth=3, heads=2, width=32, mlp=48, outputs=5
)
TARGETS = torch.tensor([0, 1, 2, 3, 4, 0])


def stack(seeds: list[int], *, rounded: bool) -> StackedVit:
    model = StackedVit(SHAPE, len(seeds), rounded=rounded)
    model.initialise(seeds)
    return model


def images(members: int = 1) -> Tensor:
    size = (members, len(TARGETS), SHAPE.channels, SHAPE.image_size, SHAPE.image_size)
    return torch.randn(size, generator=generator(0, "images"))


def logits_and_gradients(model: StackedVit, x: Tensor) -> tuple[Tensor, list[dict[str, Tensor]]]:
    logits = model(x)
    every = [torch.nn.functional.cross_entropy(row.float(), TARGETS) for row in logits]
    torch.stack(every).sum().backward()
    grad = model.flat.grad
    assert grad is not None and grad.dtype == torch.float32
    return logits.detach(), [model.member_state(k, {"params": grad}) for k in range(model.members)]


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_logits_and_gradients_are_those_of_float32_but_for_rounding(seeds: list[int]) -> None:
    """Every tensor's gradient has the direction and the length of the exact one."""
    x = images(len(seeds))
    exact, exact_gradients = logits_and_gradients(stack(seeds, rounded=False), x)
    near, near_gradients = logits_and_gradients(stack(seeds, rounded=True), x)
    assert 0 < (near - exact).abs().max() < 0.03
    assert near.dtype == torch.float32
    for one, two in zip(exact_gradients, near_gradients, strict=True):
        for name in one:
            a, b = one[name].flatten(), two[name].flatten()
            if a.norm() < 1e-4:  # the key's bias has no effect in exact arithmetic
                continue
            assert torch.cosine_similarity(a, b, dim=0) > 0.99, name
            assert b.norm() / a.norm() == pytest.approx(1.0, abs=0.05), name


def test_rounding_is_no_coarser_than_autocast() -> None:
    """What torch.autocast makes of the plain reference is as far from float32, or farther."""
    settings = dataclasses.asdict(SHAPE)
    settings = {k: v for k, v in settings.items() if k not in ("dropout", "init")}
    ours, theirs = [], []
    for seed in range(8):
        exact_model = stack([seed], rounded=False)
        reference = Vit(**settings).take(exact_model.member_state(0))
        x = images()
        with torch.no_grad():
            exact = exact_model(x)[0]
            ours.append((stack([seed], rounded=True)(x)[0] - exact).abs().mean().item())
            with torch.autocast("cpu", dtype=torch.bfloat16):
                theirs.append((reference(x[0]).float() - exact).abs().mean().item())
    assert sum(ours) <= 1.1 * sum(theirs)


def test_the_parameters_stay_exact_and_so_do_norms_embeddings_and_classifier() -> None:
    """Rounding happens to copies: of the affine maps, but not of the classifier."""
    model = stack([3], rounded=True)
    before = model.flat.detach().clone()
    tensors = model._forward_tensors()
    plain = model.tensors()
    kept = {name for name, tensor in tensors.items() if tensor.dtype == torch.float32}
    norms = {
        f"blocks.{n}.norm{i}.{p}" for n in range(3) for i in (1, 2) for p in ("weight", "bias")
    }
    ends = {"cls", "position", "norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert kept == norms | ends
    for name, tensor in tensors.items():
        expected = plain[name] if name in kept else plain[name].bfloat16()
        assert torch.equal(tensor, expected), name
    logits_and_gradients(model, images())
    assert torch.equal(model.flat.detach(), before)
