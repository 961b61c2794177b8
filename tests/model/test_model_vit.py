"""The stacked model against the plain reference."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util

import pytest
import torch
from reference import Vit
from torch.func import functional_call

from vitbench.model.builders import builds
from vitbench.model.generic import BuiltShape
from vitbench.model.layers import Dropout
from vitbench.model.layout import VitShape
from vitbench.model.vit import StackedVit
from vitbench.rng import generator

TABLE_1 = VitShape(32, 1, 4, 12, 4, 192, 768, 10)
TINY = VitShape(
    image_size=8, channels=2, patch_grid=2, depth=3, heads=2, width=12, mlp=20, outputs=5
)


def plain(shape: VitShape) -> Vit:
    settings = dataclasses.asdict(shape)
    settings = {k: v for k, v in settings.items() if k not in ("dropout", "init")}
    return Vit(**settings)


def stack(shape: VitShape, seeds: list[int], dtype: torch.dtype = torch.float64) -> StackedVit:
    model = StackedVit(shape, len(seeds))
    model.initialise(seeds)
    return model.to(dtype)


def images(members: int, batch: int, shape: VitShape = TINY) -> torch.Tensor:
    size = (members, batch, shape.channels, shape.image_size, shape.image_size)
    return torch.randn(size, generator=generator(0, "images"), dtype=torch.float64)


def test_table_1_has_the_papers_parameter_count() -> None:
    """The paper's model, tensor by tensor, in both implementations."""
    state = StackedVit(TABLE_1, 1).member_state(0)
    assert sum(t.numel() for t in state.values()) == 5_356_618
    assert sum(p.numel() for p in plain(TABLE_1).parameters()) == 5_356_618


@pytest.mark.parametrize("members", [1, 3])
def test_logits_and_gradients_equal_the_reference(members: int) -> None:
    """Each member computes what a plain model with its weights computes, on its own images."""
    model = stack(TINY, list(range(members)))
    x = images(members, 4)
    weights = torch.randn(members, 4, TINY.outputs, generator=generator(1), dtype=torch.float64)
    (model(x) * weights).sum().backward()
    grad = model.flat.grad
    assert grad is not None
    for k in range(members):
        reference = plain(TINY).double().take(model.member_state(k))
        torch.testing.assert_close(model(x)[k], reference(x[k]), rtol=0, atol=1e-12)
        (reference(x[k]) * weights[k]).sum().backward()
        got = plain(TINY).double().take(model.member_state(k, {"params": grad}))
        for name, parameter in reference.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(
                got.get_parameter(name).data, parameter.grad, rtol=0, atol=1e-11, msg=name
            )


def test_the_papers_model_equals_the_reference_in_float32() -> None:
    """Table 1 in the precision that is trained."""
    model = stack(TABLE_1, [0, 1], torch.float32)
    x = images(2, 2, TABLE_1).float()
    for k in range(2):
        expected = plain(TABLE_1).take(model.member_state(k))(x[k])
        torch.testing.assert_close(model(x)[k], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("members", [1, 3])
def test_one_set_of_images_serves_all_members(members: int) -> None:
    """Images given once give what the same images given to each member give."""
    model = stack(TINY, list(range(members)))
    x = images(1, 4)
    torch.testing.assert_close(model(x), model(x.repeat(members, 1, 1, 1, 1)), rtol=0, atol=1e-12)


def test_a_stack_equals_vmap_over_the_reference() -> None:
    """A second oracle, that batches members by torch's own machinery."""
    model = stack(TINY, [3, 4, 5])
    x = images(3, 2)
    base = plain(TINY).double()
    states = [plain(TINY).double().take(model.member_state(k)).state_dict() for k in range(3)]
    stacked = {name: torch.stack([s[name] for s in states]) for name in states[0]}
    out = torch.func.vmap(lambda state, im: functional_call(base, state, (im,)))(stacked, x)
    torch.testing.assert_close(model(x), out, rtol=0, atol=1e-12)


def test_a_seed_gives_the_same_weights_in_every_stack_and_position() -> None:
    """Initial weights follow from the seed alone, bit for bit."""
    alone = stack(TINY, [7]).member_state(0)
    for k, seeds in enumerate([[7, 1], [2, 7], [1, 2, 7, 7]]):
        at = stack(TINY, seeds).member_state(k)
        assert all(torch.equal(alone[name], at[name]) for name in alone)
    other = stack(TINY, [8]).member_state(0)
    assert not torch.equal(alone["cls"], other["cls"])


def test_initial_weights_have_the_stated_distributions() -> None:
    """Fans are those of one member, not of the stacked tensor; embeddings are uniform(0, 1)."""
    model = StackedVit(TABLE_1, 2)
    model.initialise([0, 1])
    state = model.member_state(1)
    for name, inputs in {"patch": 64, "blocks.3.qkv": 192, "blocks.3.mlp2": 768}.items():
        weight = state[f"{name}.weight"]
        bound = inputs**-0.5
        assert weight.abs().max() <= bound
        assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.03)
    position = state["position"]
    assert 0 <= position.min() < 0.01 < 0.99 < position.max() <= 1
    assert position.mean() == pytest.approx(0.5, abs=0.02)
    assert torch.equal(state["norm.weight"], torch.ones(192))


@pytest.mark.parametrize("members", [2, 5])
def test_position_in_the_stack_changes_nothing_bit_for_bit(members: int) -> None:
    """Logits and gradients of a member are the same bits wherever it stands."""
    order = list(range(members))[::-1]
    one, two = stack(TINY, list(range(members)), torch.float32), stack(TINY, order, torch.float32)
    x = images(members, 4).float()
    y_one, y_two = one(x), two(x[order])
    y_one.square().sum().backward()
    y_two.square().sum().backward()
    assert one.flat.grad is not None and two.flat.grad is not None
    assert torch.equal(y_one, y_two[order])
    assert torch.equal(one.flat.grad, two.flat.grad[order])


def test_a_neighbour_of_nan_is_untouched_bit_for_bit() -> None:
    """NaN weights in one member reach neither logits nor gradients of the others."""
    clean, sick = stack(TINY, [0, 1, 2], torch.float32), stack(TINY, [0, 1, 2], torch.float32)
    with torch.no_grad():
        sick.flat[1].fill_(float("nan"))
    x = images(3, 4).float()
    y_clean, y_sick = clean(x), sick(x)
    y_clean.square().sum().backward()
    y_sick.square().sum().backward()
    assert clean.flat.grad is not None and sick.flat.grad is not None
    assert y_sick[1].isnan().all() and sick.flat.grad[1].isnan().any()
    for k in (0, 2):
        assert torch.equal(y_clean[k], y_sick[k])
        assert torch.equal(clean.flat.grad[k], sick.flat.grad[k])


def masks(*seeds: int, share: slice = slice(None)) -> Dropout:
    return Dropout([generator(seed, "d") for seed in seeds], batch=4, share=share)


def test_an_images_dropout_does_not_depend_on_the_number_of_workers() -> None:
    """A worker that computes a part of the batch drops what one worker would have dropped."""
    model = stack(dataclasses.replace(TINY, dropout=0.5), [0, 1])
    x = images(2, 4)
    whole = model(x, masks(0, 1))
    for share in (slice(0, None, 2), slice(1, None, 2), slice(0, 1)):
        part = model(x[:, share], masks(0, 1, share=share))
        torch.testing.assert_close(part, whole[:, share], rtol=0, atol=1e-12)


def test_dropout_draws_from_each_members_own_stream() -> None:
    """A member's masks follow from its generator alone, and evaluation has none."""
    shape = dataclasses.replace(TINY, dropout=0.5)
    pair, alone = stack(shape, [0, 1]), stack(shape, [1])
    x = images(2, 4)
    dropped = pair(x, masks(0, 1))
    torch.testing.assert_close(dropped[1:], alone(x[1:], masks(1)), rtol=0, atol=1e-12)
    again = pair(x, masks(9, 1))
    assert torch.equal(dropped[1], again[1]) and not torch.equal(dropped[0], again[0])
    assert not torch.allclose(dropped[1], pair(x)[1])
    torch.testing.assert_close(pair(x), stack(TINY, [0, 1])(x), rtol=0, atol=0)


def test_a_member_goes_into_another_stack_and_back() -> None:
    """Tensors by name rebuild the member; wrong ones are named."""
    source, target = stack(TINY, [0, 1]), stack(TINY, [5, 6, 7])
    target.load_member(2, source.member_state(1))
    assert torch.equal(target.flat[2], source.flat[1])
    broken = source.member_state(0) | {"cls": torch.zeros(3)}
    with pytest.raises(ValueError, match="cls"):
        target.load_member(0, broken)


def test_weight_decay_covers_the_matrices_and_nothing_else() -> None:
    """The decayed columns are exactly the weight matrices: no bias, norm or embedding."""
    model = StackedVit(TINY, 1)
    marked = torch.zeros_like(model.flat)
    marked[:, : model.decayed] = 1
    reference = plain(TINY).take(model.member_state(0, {"params": marked}))
    groups = reference.decay_groups(0.1)
    assert all((p == 1).all() for p in groups[0]["params"])
    assert all((p == 0).all() for p in groups[1]["params"])


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm comes with an extra")
def test_initial_weights_of_timm_are_timms() -> None:
    """Tensor by tensor the mean and the spread that timm's own model of this shape starts with."""
    args = {"img_size": 32, "patch_size": 8, "depth": 2, "num_heads": 4, "embed_dim": 192}
    theirs = builds(BuiltShape("timm:vit_tiny_patch16_224", 32, 1, 10, args))().state_dict()
    shape = dataclasses.replace(TABLE_1, depth=2, init="timm")
    names = {"patch.": "patch_embed.proj.", "cls": "cls_token", "position": "pos_embed"}
    names |= {"qkv": "attn.qkv", "out": "attn.proj", "mlp1": "mlp.fc1", "mlp2": "mlp.fc2"}
    for name, ours in stack(shape, [0], torch.float32).member_state(0).items():
        timms = theirs[functools.reduce(lambda text, n: text.replace(n, names[n]), names, name)]
        assert ours.numel() == timms.numel(), name
        far = 6 * float(timms.std()) / ours.numel() ** 0.5
        assert abs(float(ours.mean() - timms.mean())) <= far + 1e-12, name
        assert float(ours.std()) == pytest.approx(float(timms.std()), rel=6 / ours.numel() ** 0.5)


def test_timms_weights_alone_leave_the_papers_embeddings() -> None:
    """timm_weights is timm's start but for CLS and position, which are the paper's of that seed."""
    paper, timm, mixed = (
        stack(dataclasses.replace(TINY, init=init), [3]).member_state(0)
        for init in ("paper", "timm", "timm_weights")
    )
    for name, tensor in mixed.items():
        same = paper if name in ("cls", "position") else timm
        assert torch.equal(tensor, same[name]), name
    assert not torch.equal(timm["position"], paper["position"])
