"""Layers with a leading member dimension, as functions of their weights.

Shape legend: K members, B batch, T tokens, D width, H heads, C head width, I inputs, O outputs.
A stack of one takes torch's own kernels (`squeeze(0)`, not `w[0]`, whose backward fills a tensor
with zeros); there it is as fast as a plain model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Dropout:
    """Where the dropout masks of one batch come from.

    Every worker draws the masks of the whole batch, so that an image's mask does not depend on how
    many workers there are.
    """

    streams: list[torch.Generator]  # one per member, on the device of the activations
    batch: int  # images in the whole batch, those of other workers included
    share: slice  # of them, those that this worker computes


def linear(x_KNI: Tensor, weight_KOI: Tensor, bias_KO: Tensor) -> Tensor:
    """Apply each member's affine map to its rows, in its precision: [K, N, I] -> [K, N, O]."""
    x_KNI = x_KNI.to(weight_KOI.dtype)
    if weight_KOI.shape[0] == 1:
        return F.linear(x_KNI, weight_KOI.squeeze(0), bias_KO.squeeze(0))
    return torch.baddbmm(bias_KO.unsqueeze(1), x_KNI, weight_KOI.transpose(1, 2))


def layer_norm(x_KND: Tensor, weight_KD: Tensor, bias_KD: Tensor) -> Tensor:
    """Normalise over the last dimension, then scale and shift with each member's weights."""
    width = x_KND.shape[-1]
    if weight_KD.shape[0] == 1:
        return F.layer_norm(x_KND, (width,), weight_KD.squeeze(0), bias_KD.squeeze(0))
    normal_KND = F.layer_norm(x_KND, (width,))
    return torch.addcmul(bias_KD.unsqueeze(1), normal_KND, weight_KD.unsqueeze(1))


def split_heads(x_KNE: Tensor, tokens: int, heads: int, parts: int) -> tuple[Tensor, ...]:
    """[K, B * T, parts * D] -> `parts` tensors (of query, key and value), each [K * B, H, T, C]."""
    members, rows, width = x_KNE.shape
    x = x_KNE.view(members * rows // tokens, tokens, parts, heads, width // (parts * heads))
    return x.permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(x_GHTC: Tensor, members: int) -> Tensor:
    """[K * B, H, T, C] -> [K, B * T, D]."""
    groups, heads, tokens, head_width = x_GHTC.shape
    rows = groups // members * tokens
    return x_GHTC.transpose(1, 2).reshape(members, rows, heads * head_width)


def attention(query_GHTC: Tensor, key_GHTC: Tensor, value_GHTC: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(C)) V by torch's fused kernel.

    On a CPU in float32 always: for these few tokens the kernel's bfloat16 backward took 20 times as
    long (torch 2.13, AMX).
    """
    if query_GHTC.is_cpu:
        query_GHTC, key_GHTC, value_GHTC = (
            x if x.dtype == torch.float64 else x.float() for x in (query_GHTC, key_GHTC, value_GHTC)
        )
    return F.scaled_dot_product_attention(query_GHTC, key_GHTC, value_GHTC)


def attention_weights(query_GHTC: Tensor, key_GHTC: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(C)), written out: [K * B, H, T, T], rows sum to 1."""
    scores: Tensor = query_GHTC @ key_GHTC.transpose(-2, -1) / query_GHTC.shape[-1] ** 0.5
    return scores.softmax(dim=-1)


def drop(x_KX: Tensor, rate: float, dropout: Dropout | None) -> Tensor:
    """Dropout in which each member draws from its own stream, whoever else is in the stack.

    Args:
        x_KX: activations of this worker's images, ordered by member, then image.
        rate: share of values set to zero; the rest are scaled by 1 / (1 - rate).
        dropout: where the masks come from; without it nothing is dropped.
    """
    if dropout is None:
        return x_KX
    members, batch = len(dropout.streams), dropout.batch
    images = members * len(range(batch)[dropout.share])
    keep_KBN = torch.empty(members, batch, x_KX.numel() // images, device=x_KX.device)
    for keep_BN, stream in zip(keep_KBN, dropout.streams, strict=True):
        keep_BN.bernoulli_(1.0 - rate, generator=stream)
    mine = keep_KBN[:, dropout.share].reshape(x_KX.shape)
    return x_KX * (mine / (1.0 - rate)).to(x_KX.dtype)
