"""The same Vision Transformer as other libraries write it, and as the paper does.

All are built in one shape (`PAPER`), without dropout. timm and vit-pytorch come with the `bench`
extra.

Shape legend: B batch, C channels, S image side, T tokens, D width, H heads, E head width.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vitbench import torchvision_import
from vitbench.errors import UserError
from vitbench.model.layout import VitShape

# The paper's Table 1.
PAPER = VitShape(
    image_size=32, channels=1, patch_grid=4, width=192, depth=12, heads=4, mlp=768, outputs=10
)


def _class_of(library: str, module: str, name: str) -> Any:
    """A class of a library that comes with the `bench` extra."""
    torchvision_import.torchvision()  # both import it, and beside a CPU-only torch that needs care
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{library} is not installed; the libraries to compare with come with the 'bench' "
            f"extra: pip install -c constraints.txt -e '.[bench]'"
        ) from error


def timm(shape: VitShape) -> nn.Module:
    """timm's VisionTransformer."""
    model: nn.Module = _class_of("timm", "timm.models.vision_transformer", "VisionTransformer")(
        img_size=shape.image_size,
        patch_size=shape.patch_px,
        in_chans=shape.channels,
        num_classes=shape.outputs,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        mlp_ratio=shape.mlp / shape.width,
    )
    return model


def torchvision(shape: VitShape) -> nn.Module:
    """torchvision's VisionTransformer, its patch layer replaced: it knows RGB images only."""
    model: nn.Module = torchvision_import.torchvision().models.VisionTransformer(
        image_size=shape.image_size,
        patch_size=shape.patch_px,
        num_layers=shape.depth,
        num_heads=shape.heads,
        hidden_dim=shape.width,
        mlp_dim=shape.mlp,
        num_classes=shape.outputs,
    )
    model.conv_proj = _patches(shape)
    return model


def vit_pytorch(shape: VitShape) -> nn.Module:
    """vit-pytorch's ViT: two LayerNorms more in its patch layer, no bias in query, key, value."""
    model: nn.Module = _class_of("vit-pytorch", "vit_pytorch", "ViT")(
        image_size=shape.image_size,
        patch_size=shape.patch_px,
        num_classes=shape.outputs,
        dim=shape.width,
        depth=shape.depth,
        heads=shape.heads,
        dim_head=shape.width // shape.heads,
        mlp_dim=shape.mlp,
        channels=shape.channels,
    )
    return model


def _patches(shape: VitShape) -> nn.Conv2d:
    return nn.Conv2d(shape.channels, shape.width, kernel_size=shape.patch_px, stride=shape.patch_px)


class PaperAttention(nn.Module):
    """Multi-head attention spelled out, as the paper's listing does (Hirokawa, section 3.2)."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm = nn.LayerNorm(shape.width)
        self.query, self.key, self.value, self.out = (
            nn.Linear(shape.width, shape.width) for _ in range(4)
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Attend over the tokens; the shape stays [B, T, D]."""
        x_BTD = self.norm(x_BTD)
        query_BHTE, key_BHTE, value_BHTE = (
            layer(x_BTD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scale = query_BHTE.shape[-1] ** 0.5
        weights_BHTT = torch.softmax((query_BHTE @ key_BHTE.mT) / scale, dim=-1)
        out: Tensor = self.out((weights_BHTT @ value_BHTE).transpose(1, 2).flatten(2))
        return out


class PaperViT(nn.Module):
    """The paper's model with its explicit attention: convolution, CLS, positions, blocks, class."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        width = shape.width
        self.patches = _patches(shape)
        self.position = nn.Parameter(torch.rand(1, shape.tokens, width))
        self.cls = nn.Parameter(torch.rand(1, 1, width))
        self.attention = nn.ModuleList(PaperAttention(shape) for _ in range(shape.depth))
        self.mlp = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, shape.mlp),
                nn.GELU(),
                nn.Linear(shape.mlp, width),
            )
            for _ in range(shape.depth)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, shape.outputs))

    def forward(self, x_BCSS: Tensor) -> Tensor:
        """Images to logits [B, outputs]."""
        x_BTD = self.patches(x_BCSS).flatten(2).permute(0, 2, 1)
        cls_B1D = self.cls.repeat_interleave(len(x_BTD), dim=0)
        x_BTD = torch.cat((cls_B1D, x_BTD), dim=1) + self.position
        for attention, mlp in zip(self.attention, self.mlp, strict=True):
            x_BTD = x_BTD + attention(x_BTD)
            x_BTD = x_BTD + mlp(x_BTD)
        out: Tensor = self.head(x_BTD[:, 0])
        return out


BUILDERS: dict[str, Callable[[VitShape], nn.Module]] = {
    "paper's listing": PaperViT,
    "timm": timm,
    "torchvision": torchvision,
    "vit-pytorch": vit_pytorch,
}


def paper(*, channels: int, image_size: int, outputs: int, width: int, depth: int) -> nn.Module:
    """The paper's ViT as timm writes it, under the contract of `model.build`."""
    images = replace(PAPER, channels=channels, image_size=image_size, outputs=outputs)
    return timm(replace(images, width=width, depth=depth, mlp=4 * width))
