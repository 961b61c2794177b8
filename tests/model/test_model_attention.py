"""Attention written out agrees with the model that trains."""

from __future__ import annotations

import pytest
import torch

from vitbench.model.attention import attend, gradient_weighted, rollout
from vitbench.model.layout import VitShape
from vitbench.model.vit import StackedVit

SHAPE = VitShape(16, 1, 4, 3, 2, 16, 24, 5)


@pytest.fixture
def model() -> StackedVit:
    found = StackedVit(SHAPE, 1)
    found.initialise([3])
    return found


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_logits_agree_with_the_fused_forward(model: StackedVit, images: torch.Tensor) -> None:
    """What is shown is what the model does, to 1e-5."""
    with torch.no_grad():
        fused = model(images.unsqueeze(0)).squeeze(0)
        layers, logits = attend(model, images)
    torch.testing.assert_close(logits, fused, atol=1e-5, rtol=0)
    weights = torch.stack(layers)
    assert weights.shape == (3, 6, 2, 17, 17)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 6, 2, 17))


def test_rollout_rows_sum_to_one(model: StackedVit, images: torch.Tensor) -> None:
    """It stays a distribution over tokens, to 1e-6, whatever the depth."""
    with torch.no_grad():
        joined = rollout(torch.stack(attend(model, images)[0]).double())
    assert (joined.sum(-1) - 1).abs().max() < 1e-6
    assert (joined >= 0).all()


def test_rollout_of_one_layer_by_hand() -> None:
    """Half of the attention, half of the skip connection."""
    weights = torch.tensor([[0.2, 0.8], [0.6, 0.4]]).view(1, 1, 1, 2, 2)
    expected = torch.tensor([[[0.6, 0.4], [0.3, 0.7]]])
    torch.testing.assert_close(rollout(weights), expected)


def test_gradient_weights_depend_on_the_question(model: StackedVit, images: torch.Tensor) -> None:
    """Another class, another map; without a question it is the predicted one; none is negative."""
    with torch.no_grad():
        predicted = model(images.unsqueeze(0)).squeeze(0).argmax(1)
    free = gradient_weighted(model, images)
    torch.testing.assert_close(gradient_weighted(model, images, predicted), free)
    other = gradient_weighted(model, images, (predicted + 1) % 5)
    assert not torch.allclose(other, free)
    assert (free >= 0).all() and free.shape == (6, 17)


def test_a_stack_of_several_is_refused(images: torch.Tensor) -> None:
    """One map belongs to one model."""
    with pytest.raises(ValueError, match="not from 2"):
        attend(StackedVit(SHAPE, 2), images)
