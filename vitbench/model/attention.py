"""Where one trained model looks: attention written out, off the training path.

Shape legend: K members, B images, L layers, H heads, T tokens (CLS first), O outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from vitbench.errors import UserError
from vitbench.model.generic import GenericStack
from vitbench.model.stacked import StackedModel
from vitbench.model.vit import StackedVit

METHOD = "attention_maps"  # of a user's module: images [B, C, Y, X] -> [L, B, H, T, T]


def shows_attention(model: StackedModel) -> bool:
    """Whether there is something to see: a ViT, ours or timm's, or a module with `METHOD`."""
    if isinstance(model, GenericStack):
        return hasattr(model.module, METHOD) or bool(_of_timm(model.module))
    return isinstance(model, StackedVit)


def attend(model: StackedModel, images_BCYX: Tensor) -> tuple[list[Tensor], Tensor]:
    """Run one model (`training.checkpoint.load_member`) with the softmax written out.

    Returns:
        The attention of each layer, [B, H, T, T] with rows that sum to 1, and the logits [B, O] as
        the fused forward gives them. A user's module without a CLS token gets one that attends to
        the patches as they do on average, and to which none of them attends.

    Raises:
        ValueError: if the model is a stack of several.
        UserError: if a user's module shows what is no attention over a square of patches.
    """
    if model.members != 1:
        raise ValueError(f"attention is read from one model, not from {model.members}")
    if isinstance(model, GenericStack):
        module = model.loaded()
        layers = _maps_of(module, images_BCYX)
        return [_with_cls(layer, module) for layer in layers], model(images_BCYX.unsqueeze(0))[0]
    assert isinstance(model, StackedVit)
    layers, logits_KBO = attend_stack(model, images_BCYX.unsqueeze(0))
    return layers, logits_KBO.squeeze(0)


def _maps_of(module: nn.Module, images_BCYX: Tensor) -> list[Tensor]:
    """The attention of each layer of a user's module, or of timm's ViT, as it is."""
    method = getattr(module, METHOD, None)
    if method is not None:
        maps_LBHTT = method(images_BCYX)
        if not isinstance(maps_LBHTT, Tensor) or maps_LBHTT.dim() != 5:
            raise UserError(f"{METHOD} must return one tensor [layers, B, heads, T, T]")
        return list(maps_LBHTT)
    seen: list[Tensor] = []
    parts = _of_timm(module)
    with contextlib.ExitStack() as kept:
        for part in parts:
            kept.enter_context(_written_out(part))
            hook = part.attn_drop.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
            kept.callback(hook.remove)
        module(images_BCYX)
    return seen


def _of_timm(module: nn.Module) -> list[Any]:
    """The attention layers of a model that is made as timm's ViTs are."""
    names = ("fused_attn", "qkv", "attn_drop")
    return [part for part in module.modules() if all(hasattr(part, name) for name in names)]


@contextlib.contextmanager
def _written_out(part: Any) -> Iterator[None]:
    fused, part.fused_attn = part.fused_attn, False
    try:
        yield
    finally:
        part.fused_attn = fused


def _with_cls(layer_BHTT: Tensor, module: nn.Module) -> Tensor:
    """CLS first, then a square of patches; timm's register tokens are left out."""
    tokens = layer_BHTT.shape[-1]
    prefix = int(getattr(module, "num_prefix_tokens", 0 if isqrt(tokens) ** 2 == tokens else 1))
    patches = tokens - prefix
    if layer_BHTT.shape[-2] != tokens or isqrt(patches) ** 2 != patches:
        raise UserError(f"shows attention over {tokens} tokens, which are no square of patches")
    rows = layer_BHTT.sum(dim=-1)
    if not torch.allclose(rows, torch.ones_like(rows), atol=1e-3):
        raise UserError("shows maps whose rows do not sum to 1: they are no attention")
    if prefix:
        keep = [0, *range(prefix, tokens)]
        kept = layer_BHTT[..., keep, :][..., keep]
        return kept / kept.sum(dim=-1, keepdim=True)
    with_cls = torch.nn.functional.pad(layer_BHTT, (1, 0, 1, 0))
    with_cls[:, :, 0, 1:] = layer_BHTT.mean(dim=2)
    return with_cls


def attend_stack(model: StackedVit, images_KBCYX: Tensor) -> tuple[list[Tensor], Tensor]:
    """As `attend` for all members of a stack: of each layer [K * B, H, T, T], logits [K, B, O]."""
    w = model.tensors()
    x = model.embed(w, images_KBCYX)
    layers: list[Tensor] = []
    for number in range(model.shape.depth):
        x = model.block(w, number, x, seen=layers)
    return layers, model.classify(w, model.cls(x))


def rollout(weights_LBHTT: Tensor) -> Tensor:
    """Attention followed through the layers, skip connections included: [B, T, T], rows sum to 1.

    The product of (A + I) / 2 over layers, A averaged over heads (arXiv:2005.00928).
    """
    mean_LBTT = weights_LBHTT.mean(dim=2)
    identity = torch.eye(mean_LBTT.shape[-1], dtype=mean_LBTT.dtype)
    joined = identity.expand_as(mean_LBTT[0])
    for layer_BTT in mean_LBTT:
        joined = (0.5 * layer_BTT + 0.5 * identity) @ joined
    return joined


def gradient_weighted(
    model: StackedVit, images_BCYX: Tensor, output_B: Tensor | None = None
) -> Tensor:
    """Last layer's CLS attention weighted by its gradient for one output, [B, T], at least 0.

    Mean over heads of (gradient x attention), negative parts cut off (arXiv:2103.15679).

    Args:
        model: one member.
        images_BCYX: normalised images.
        output_B: the output that each image is asked about; the predicted one if left out. A
            model with a single output is asked for the sign of what it predicts.
    """
    with torch.enable_grad():
        layers, logits_BO = attend(model, images_BCYX)
        (gradient_BHTT,) = torch.autograd.grad(_asked(logits_BO, output_B), layers[-1])
    product_BHT = gradient_BHTT[:, :, 0] * layers[-1][:, :, 0]
    return product_BHT.clamp(min=0).mean(dim=1).detach()


def input_gradient(model: StackedModel, images_BCYX: Tensor) -> tuple[Tensor, Tensor]:
    """How much each pixel moves the predicted output: |d logit / d pixel|, summed over channels.

    The image-specific saliency of Simonyan et al. 2013 (arXiv:1312.6034); for any model.

    Returns:
        The map, [B, Y, X], and the logits [B, O].
    """
    with torch.enable_grad():
        pixels_BCYX = images_BCYX.detach().clone().requires_grad_()
        logits_BO = model(pixels_BCYX.unsqueeze(0))[0]
        (gradient_BCYX,) = torch.autograd.grad(_asked(logits_BO), pixels_BCYX)
    return gradient_BCYX.abs().sum(dim=1), logits_BO.detach()


def _asked(logits_BO: Tensor, output_B: Tensor | None = None) -> Tensor:
    """Sum over images of the output that each is asked about, see `gradient_weighted`."""
    if logits_BO.shape[1] == 1:
        return logits_BO.abs().sum()
    chosen_B = logits_BO.argmax(dim=1) if output_B is None else output_B
    return logits_BO.gather(1, chosen_B.unsqueeze(1)).sum()
