"""Where one trained model looks: attention written out, off the training path.

Shape legend: B images, L layers, H heads, T tokens (CLS first), O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitbench.model import layers
from vitbench.model.vit import StackedVit


@dataclass(frozen=True)
class Attention:
    """The attention of every layer and head, and what the model made of it.

    Attributes:
        layers: softmax of the scores of each layer, [B, H, T, T]; rows sum to 1.
        logits_BO: as the fused forward gives them.
    """

    layers: tuple[Tensor, ...]
    logits_BO: Tensor

    @property
    def weights_LBHTT(self) -> Tensor:
        """All layers as one tensor."""
        return torch.stack(self.layers)


def attend(model: StackedVit, images_BCYX: Tensor) -> Attention:
    """Run a stack of one with the softmax written out.

    Args:
        model: one member (`training.checkpoint.load_member`).
        images_BCYX: normalised images.

    Raises:
        ValueError: if the model is a stack of several.
    """
    if model.members != 1:
        raise ValueError(f"attention is read from one model, not from {model.members}")
    shape, w = model.shape, model.tensors()
    x = model.embed(w, images_BCYX.unsqueeze(0))
    every: list[Tensor] = []
    for number in range(shape.depth):
        x = model.block(w, number, x, seen=every)
    cls = x.view(1, -1, shape.tokens, shape.width)[:, :, 0]
    cls = layers.layer_norm(cls, w["norm.weight"], w["norm.bias"])
    logits = layers.linear(cls, w["head.weight"], w["head.bias"]).squeeze(0)
    return Attention(tuple(every), logits)


def rollout(weights_LBHTT: Tensor) -> Tensor:
    """Attention followed through the layers, skip connections included: [B, T, T], rows sum to 1.

    The product of (A + I) / 2 over layers, A averaged over heads (arXiv:2005.00928).
    """
    mean_LBTT = weights_LBHTT.mean(dim=2)
    identity = torch.eye(mean_LBTT.shape[-1], dtype=mean_LBTT.dtype, device=mean_LBTT.device)
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
        attention = attend(model, images_BCYX)
        logits_BO = attention.logits_BO
        if logits_BO.shape[1] == 1:
            asked_B = logits_BO.squeeze(1).abs()
        else:
            chosen_B = logits_BO.argmax(dim=1) if output_B is None else output_B
            asked_B = logits_BO.gather(1, chosen_B.unsqueeze(1)).squeeze(1)
        last_BHTT = attention.layers[-1]
        (gradient_BHTT,) = torch.autograd.grad(asked_B.sum(), last_BHTT)
    product_BHT = gradient_BHTT[:, :, 0] * last_BHTT[:, :, 0]
    return product_BHT.clamp(min=0).mean(dim=1).detach()
