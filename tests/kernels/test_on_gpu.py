"""The GPU programs on a GPU, in the paper's shape, against torch's own operations there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitbench.kernels.check import adam_agrees
from vitbench.model.fused_check import choose_kernels
from vitbench.model.layout import VitShape
from vitbench.model.vit import StackedVit
from vitbench.rng import generator

TABLE_1 = VitShape(32, 1, 4, 12, 4, 192, 768, 10)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("members", "batch"), [(1, 16), (3, 16), (3, 128), (16, 128)])
def test_the_papers_model_has_the_gradients_of_torchs_operations(members: int, batch: int) -> None:
    """In every tensor about as near to float32's as torch's operations in bfloat16 are, and the
    same bit for bit when it is computed again.
    """
    x = torch.randn(1, batch, 1, 32, 32, generator=generator(0)).cuda()
    weight = torch.randn(members, batch, 10, generator=generator(1)).cuda() / batch

    def computed(*, rounded: bool, fused: bool) -> dict[str, Tensor]:
        model = StackedVit(TABLE_1, members, rounded=rounded)
        model.initialise(range(members))
        model.cuda()
        model.fused = fused
        logits = model(x)
        (grad,) = torch.autograd.grad((logits * weight).sum(), model.flat)
        return {"logits": logits.detach(), **model.tensors(grad)}

    exact = computed(rounded=False, fused=False)
    usual = computed(rounded=True, fused=False)
    found, again = (computed(rounded=True, fused=True) for _ in range(2))
    assert not torch.equal(usual["logits"], found["logits"])  # two ways indeed
    for name, truth in exact.items():
        assert torch.equal(found[name], again[name])
        errors = [float((way[name] - truth).norm() / truth.norm()) for way in (usual, found)]
        assert errors[1] < max(2.5 * errors[0], 0.01), (name, errors)


@pytest.mark.gpu
@needs_gpu
def test_the_programs_are_trusted_here(caplog: pytest.LogCaptureFixture) -> None:
    """The checks before the first step find that they agree, those of the update, too."""
    model = StackedVit(TABLE_1, 2, rounded=True).cuda()
    choose_kernels(model)
    assert model.fused, caplog.text
    assert adam_agrees(torch.device("cuda")), caplog.text
