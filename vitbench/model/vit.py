"""K Vision Transformers of one shape as one module with one flat parameter.

Shape legend: K members, B batch, T tokens (CLS first), M patches, D width, O outputs,
P parameters of one member.

As in the paper's listing: patches by a convolution with kernel = stride, a learned CLS token, a
learned position embedding added to all tokens, both from uniform(0, 1); blocks of LayerNorm,
multi-head self-attention, LayerNorm and MLP, each with a skip connection; a classifier on the CLS
token. Where the listing is silent, this is a choice of ours: GELU in the MLP, a final LayerNorm
before the classifier, and pixels normalised per channel. Dropout, where asked for, follows the
embedding, the attention weights, the projection and both layers of the MLP.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from vitbench.model import fused_vit, layers
from vitbench.model.layers import Dropout
from vitbench.model.layout import Slot, VitShape, layout, rounded_tensors
from vitbench.model.stacked import StackedModel
from vitbench.rng import generator


class StackedVit(StackedModel):
    """K Vision Transformers of one shape.

    Where it is `rounded`, affine maps compute in bfloat16; the parameters stay as they are.
    """

    def __init__(self, shape: VitShape, members: int, *, rounded: bool = False) -> None:
        super().__init__(layout(shape), members)
        self.shape, self.rounded = shape, rounded
        self.draws = shape.dropout > 0
        self.image_bytes = shape.tokens * max(shape.mlp, 3 * shape.width) * 4

    def initialise(self, seeds: Sequence[int]) -> None:
        """Give each member the initial weights of its seed, the same in every stack.

        Affine maps start from uniform(-1, 1) / sqrt(inputs), as torch's own layers do. With
        `init` timm, those behind the patches start as timm's do, and so do the embeddings, which
        timm_weights leaves as they are.
        """
        with torch.no_grad():
            for row, seed in zip(self.flat, seeds, strict=True):
                for part, slot in zip(row.split(self._sizes), self.slots, strict=True):
                    part.copy_(_initial(slot, seed, self.shape.init))

    def _forward_tensors(self) -> dict[str, Tensor]:
        """What a forward pass computes with; `rounded`, linear() computes in bfloat16.

        Norms, embeddings and the classifier stay exact, and so does what skip connections add up.
        """
        return rounded_tensors(self.flat, self.slots) if self.rounded else self.tensors()

    def embed(self, w: dict[str, Tensor], images_KBCYX: Tensor) -> Tensor:
        """Cut images into patches and embed them: [K or 1, B, C, Y, X] -> [K, B * T, D].

        One set of images serves all members where the first dimension is 1.
        """
        shape, members = self.shape, self.members
        batch, grid, px = images_KBCYX.shape[1], shape.patch_grid, shape.patch_px
        sources = images_KBCYX.shape[0]
        patches = images_KBCYX.view(sources, batch, shape.channels, grid, px, grid, px)
        patches = patches.permute(0, 1, 3, 5, 2, 4, 6).reshape(sources, batch * grid**2, -1)
        if sources != members:
            patches = patches.expand(members, -1, -1)
        x = layers.linear(patches, w["patch.weight"], w["patch.bias"])
        x = x.view(members, batch, grid**2, shape.width)
        cls = w["cls"].view(members, 1, 1, -1).expand(-1, batch, -1, -1)
        x = torch.cat((cls, x), dim=2) + w["position"].unsqueeze(1)
        return x.view(members, batch * shape.tokens, shape.width)

    def forward(self, images_KBCYX: Tensor, dropout: Dropout | None = None) -> Tensor:
        """Logits of every member, [K, B, O]; see `StackedModel.forward`."""
        w = self._forward_tensors()
        last = self.shape.depth - 1
        x = layers.drop(self.embed(w, images_KBCYX), self.shape.dropout, dropout)
        if self.fused and dropout is None:
            normal = fused_vit.encode(w, x, self.shape, self.cls)
            return layers.linear(normal, w["head.weight"], w["head.bias"])
        for number in range(last):
            x = self.block(w, number, x, dropout)
        return self.classify(w, self.block(w, last, x, dropout, cls_only=True))

    def classify(self, w: dict[str, Tensor], cls_KBD: Tensor) -> Tensor:
        """Logits [K, B, O] from what the last block makes of the CLS tokens."""
        x = layers.layer_norm(cls_KBD, w["norm.weight"], w["norm.bias"])
        return layers.linear(x, w["head.weight"], w["head.bias"])

    def block(
        self,
        w: dict[str, Tensor],
        number: int,
        x_KND: Tensor,
        dropout: Dropout | None = None,
        *,
        cls_only: bool = False,
        seen: list[Tensor] | None = None,
    ) -> Tensor:
        """One encoder block: [K, B * T, D] -> the same, or [K, B, D] with `cls_only`.

        Args:
            w: `tensors()`.
            number: of the block, from 0.
            x_KND: activations of all tokens.
            dropout: see `forward`.
            cls_only: compute nothing but keys and values for the other tokens. The classifier reads
                the CLS token alone, so in the last block that changes no logit and no gradient.
            seen: gets the attention weights, [K * B, H, T, T].
        """
        name, shape, rate, x = f"blocks.{number}", self.shape, self.shape.dropout, x_KND
        y = layers.layer_norm(x, w[f"{name}.norm1.weight"], w[f"{name}.norm1.bias"])
        weight, bias = w[f"{name}.qkv.weight"], w[f"{name}.qkv.bias"]
        if cls_only:
            sizes = (shape.width, 2 * shape.width)
            (q_weight, kv_weight), (q_bias, kv_bias) = weight.split(sizes, 1), bias.split(sizes, 1)
            q = layers.linear(self.cls(y), q_weight, q_bias)
            kv = layers.linear(y, kv_weight, kv_bias)
            (query,) = layers.split_heads(q, 1, shape.heads, parts=1)
            key, value = layers.split_heads(kv, shape.tokens, shape.heads, parts=2)
            x = self.cls(x)
        else:
            qkv = layers.linear(y, weight, bias)
            query, key, value = layers.split_heads(qkv, shape.tokens, shape.heads, parts=3)
        if dropout is None and seen is None:
            y = layers.attention(query, key, value)
        else:
            weights = layers.attention_weights(query, key)
            if seen is not None:
                seen.append(weights)
            # The fused kernel would draw from the global stream.
            y = layers.drop(weights, rate, dropout) @ value
        y = layers.merge_heads(y, self.members)
        y = layers.linear(y, w[f"{name}.out.weight"], w[f"{name}.out.bias"])
        x = x + layers.drop(y, rate, dropout)
        y = layers.layer_norm(x, w[f"{name}.norm2.weight"], w[f"{name}.norm2.bias"])
        y = F.gelu(layers.linear(y, w[f"{name}.mlp1.weight"], w[f"{name}.mlp1.bias"]))
        y = layers.drop(y, rate, dropout)
        y = layers.linear(y, w[f"{name}.mlp2.weight"], w[f"{name}.mlp2.bias"])
        return x + layers.drop(y, rate, dropout)

    def cls(self, x_KND: Tensor) -> Tensor:
        """The CLS token of every image: [K, B * T, D] -> [K, B, D]."""
        return x_KND.view(self.members, -1, self.shape.tokens, self.shape.width)[:, :, 0]


def _initial(slot: Slot, seed: int, init: str) -> Tensor:
    if slot.init in ("ones", "zeros"):
        return torch.full((slot.size,), float(slot.init == "ones"))
    stream = generator(seed, "init", slot.name)
    kept = ("patch.", "cls", "position") if init == "timm_weights" else ("patch.",)
    if init != "paper" and not slot.name.startswith(kept):
        return torch.randn(slot.size, generator=stream) * _timm_sd(slot)
    values = torch.rand(slot.size, generator=stream)
    if slot.init == "uniform01":
        return values
    return (2.0 * values - 1.0) * (1.0 / sqrt(int(slot.init.removeprefix("fan_in:"))))


def _timm_sd(slot: Slot) -> float:
    """Standard deviation of initial values in timm 1.0's VisionTransformer.init_weights.

    It cuts its normals off at 2, which is 100 standard deviations; patches stay as torch's are.
    """
    if slot.name == "cls":
        return 1e-6
    return 0.02 if slot.decay or slot.name == "position" else 0.0
