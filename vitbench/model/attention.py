"""Where one trained model looks: attention written out, off the training path.

Shape legend: K members, B images, L layers, H heads, T tokens (CLS first), O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitbench.model.vit import StackedVit


def attend(model: StackedVit, images_BCYX: Tensor) -> tuple[list[Tensor], Tensor]:
    """Run one model (`training.checkpoint.load_member`) with the softmax written out.

    Returns:
        The attention of each layer, [B, H, T, T] with rows that sum to 1, and the logits [B, O] as
        the fused forward gives them.

    Raises:
        ValueError: if the model is a stack of several.
    """
    if model.members != 1:
        raise ValueError(f"attention is read from one model, not from {model.members}")
    layers, logits_KBO = attend_stack(model, images_BCYX.unsqueeze(0))
    return layers, logits_KBO.squeeze(0)


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
        if logits_BO.shape[1] == 1:
            asked_B = logits_BO.squeeze(1).abs()
        else:
            chosen_B = logits_BO.argmax(dim=1) if output_B is None else output_B
            asked_B = logits_BO.gather(1, chosen_B.unsqueeze(1)).squeeze(1)
        (gradient_BHTT,) = torch.autograd.grad(asked_B.sum(), layers[-1])
    product_BHT = gradient_BHTT[:, :, 0] * layers[-1][:, :, 0]
    return product_BHT.clamp(min=0).mean(dim=1).detach()
