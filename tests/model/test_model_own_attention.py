"""Where users' modules look: by their own method, by timm's blocks, or by their input gradients."""

from __future__ import annotations

import pytest
import torch

from vitbench.attention.maps import compute, faithfulness
from vitbench.errors import UserError
from vitbench.model.attention import attend, shows_attention
from vitbench.model.builders import of_shape
from vitbench.model.generic import GenericStack


def stack(build: str, seed: int = 3) -> GenericStack:
    """A stack of one for 8x8 images in 3 classes."""
    shape = {"image_size": 8, "channels": 1, "outputs": 3, "args": {}}
    model = of_shape({"build": f"sample_models:{build}", **shape}, members=1)
    assert isinstance(model, GenericStack)
    model.initialise([seed])
    return model.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_timms_blocks_are_read_with_the_members_weights(images: torch.Tensor) -> None:
    """Softmax of query and key by hand, from the first block's own weights; logits stay."""
    model = stack("timm_vit")
    assert shows_attention(model)
    with torch.no_grad():
        layers, logits = attend(model, images)
        assert torch.allclose(logits, model(images.unsqueeze(0))[0], atol=1e-6)
        state, module = model.member_state(0), model.loaded()
        x = module._pos_embed(module.patch_embed(images))
        x = torch.nn.functional.layer_norm(
            x, (8,), state["blocks.0.norm1.weight"], state["blocks.0.norm1.bias"], eps=1e-6
        )
        qkv = x @ state["blocks.0.attn.qkv.weight"].T + state["blocks.0.attn.qkv.bias"]
        query, key, _ = qkv.view(4, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
        expected = (query @ key.transpose(2, 3) / 4**0.5).softmax(-1)
    assert len(layers) == 2 and layers[0].shape == (4, 2, 5, 5)
    torch.testing.assert_close(layers[0], expected, atol=1e-6, rtol=0)
    assert module.blocks[0].attn.fused_attn


def test_a_module_without_cls_is_seen_by_the_mean_of_its_tokens(images: torch.Tensor) -> None:
    """The map says how much each patch is attended to on average; its scores are defined."""
    model = stack("pooled")
    found = compute(model, images)
    with torch.no_grad():
        own = model.loaded().attention_maps(images)[0]
    assert found.patch_grid == 2 and set(found.by_method) == {"last", "rollout"}
    expected = own.mean(dim=(1, 2)).double().numpy()
    assert found.by_method["last"] == pytest.approx(expected, abs=1e-6)
    assert found.self_mass_B == pytest.approx(0)
    for map_BM in found.by_method.values():
        assert map_BM.sum(axis=1) == pytest.approx(1)
    assert faithfulness(model, images, found.by_method, seed=0)["last"].shape == (2, 4)


def test_a_model_without_attention_is_seen_by_its_input_gradients(images: torch.Tensor) -> None:
    """Of a linear model they are the sizes of the predicted class's weights; a CNN has a map."""
    shape = {"image_size": 16, "channels": 2, "outputs": 3, "args": {}}
    linear = of_shape({"build": "vitbench.model.baselines:linear", **shape}, members=1)
    linear.initialise([1])
    pixels = torch.randn(5, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    found = compute(linear.eval(), pixels)
    assert list(found.by_method) == ["input_gradient"] and found.patch_grid == 8
    weights = linear.member_state(0)["1.weight"].view(3, 2, 8, 2, 8, 2).abs().sum((1, 3, 5))
    expected = weights.flatten(1)[torch.from_numpy(found.predicted_B)].double()
    expected /= expected.sum(dim=1, keepdim=True)
    assert found.by_method["input_gradient"] == pytest.approx(expected.numpy(), rel=1e-5)
    model = stack("resnet")
    assert not shows_attention(model)
    maps = compute(model, images).by_method
    assert maps["input_gradient"].sum(axis=1) == pytest.approx(1)
    assert faithfulness(model, images, maps, seed=0)["input_gradient"].shape == (2, 4)


def test_what_is_no_attention_is_refused(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps whose rows do not sum to 1, or of no square, are named."""
    for maps, words in (
        (torch.ones(1, 4, 2, 4, 4), "do not sum to 1"),
        (torch.ones(1, 4, 2, 3, 3) / 3, "no square of patches"),
        (torch.ones(4, 2, 4, 4), "must return one tensor"),
    ):
        model = stack("pooled")
        monkeypatch.setattr(type(model.module), "attention_maps", lambda _, x, m=maps: m)
        with pytest.raises(UserError, match=words):
            attend(model, images)
