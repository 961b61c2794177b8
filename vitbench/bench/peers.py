"""The same Vision Transformer as other libraries write it, and as the paper does.

All are built in one shape (`PAPER`), without dropout, and train with torch.optim.RAdam. timm and
vit-pytorch come with the `bench` extra.

Shape legend: B batch, C channels, S image side, T tokens, D width, H heads, E head width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitbench.data import _torchvision
from vitbench.errors import UserError
from vitbench.model.layout import VitShape

# The paper's Table 1.
PAPER = VitShape(
    image_size=32, channels=1, patch_grid=4, width=192, depth=12, heads=4, mlp=768, outputs=10
)


class PeerMissing(UserError):
    """A library to compare with is not installed."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} is not installed; the libraries to compare with come with the 'bench' extra: "
            f"pip install -c constraints.txt -e '.[bench]'"
        )


def timm(shape: VitShape) -> nn.Module:
    """timm's VisionTransformer."""
    _torchvision.torchvision()  # timm imports it, and beside a CPU-only torch that needs care
    try:
        from timm.models.vision_transformer import VisionTransformer
    except ModuleNotFoundError as error:
        raise PeerMissing("timm") from error
    model: nn.Module = VisionTransformer(
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
    """torchvision's VisionTransformer, its patch layer replaced where images are not RGB."""
    model: nn.Module = _torchvision.torchvision().models.VisionTransformer(
        image_size=shape.image_size,
        patch_size=shape.patch_px,
        num_layers=shape.depth,
        num_heads=shape.heads,
        hidden_dim=shape.width,
        mlp_dim=shape.mlp,
        num_classes=shape.outputs,
    )
    if shape.channels != 3:
        model.conv_proj = nn.Conv2d(
            shape.channels, shape.width, kernel_size=shape.patch_px, stride=shape.patch_px
        )
    return model


def vit_pytorch(shape: VitShape) -> nn.Module:
    """vit-pytorch's ViT: two LayerNorms more in its patch layer, no bias in query, key, value."""
    _torchvision.torchvision()  # vit-pytorch imports it, too
    try:
        from vit_pytorch import ViT
    except ModuleNotFoundError as error:
        raise PeerMissing("vit-pytorch") from error
    model: nn.Module = ViT(
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


class _PaperAttention(nn.Module):
    """Multi-head attention spelled out, as the paper's listing does (Hirokawa, section 3.2)."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm = nn.LayerNorm(shape.width)
        self.query = nn.Linear(shape.width, shape.width)
        self.key = nn.Linear(shape.width, shape.width)
        self.value = nn.Linear(shape.width, shape.width)
        self.out = nn.Linear(shape.width, shape.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Attend over the tokens; the shape stays [B, T, D]."""
        B, T, D = x_BTD.shape
        E = D // self.heads
        x_BTD = self.norm(x_BTD)
        query_BHTE = self.query(x_BTD).reshape(B, T, self.heads, E).permute(0, 2, 1, 3)
        key_BHET = self.key(x_BTD).reshape(B, T, self.heads, E).permute(0, 2, 3, 1)
        value_BHTE = self.value(x_BTD).reshape(B, T, self.heads, E).permute(0, 2, 1, 3)
        weights_BHTT = torch.softmax((query_BHTE @ key_BHET) / E**0.5, dim=-1)
        mixed_BTHE = (weights_BHTT @ value_BHTE).permute(0, 2, 1, 3)
        out: Tensor = self.out(mixed_BTHE.reshape(B, T, D))
        return out


class _PaperBlock(nn.Module):
    """Attention and MLP, a skip connection around each."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.attention = _PaperAttention(shape)
        self.mlp = nn.Sequential(
            nn.LayerNorm(shape.width),
            nn.Linear(shape.width, shape.mlp),
            nn.GELU(),
            nn.Linear(shape.mlp, shape.width),
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        """One encoder block; the shape stays [B, T, D]."""
        x_BTD = x_BTD + self.attention(x_BTD)
        out: Tensor = x_BTD + self.mlp(x_BTD)
        return out


class PaperViT(nn.Module):
    """The paper's model with its explicit attention: convolution, CLS, positions, blocks, class."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.patches = nn.Conv2d(
            shape.channels, shape.width, kernel_size=shape.patch_px, stride=shape.patch_px
        )
        self.position = nn.Parameter(nn.init.uniform_(torch.empty(1, shape.tokens, shape.width)))
        self.cls = nn.Parameter(nn.init.uniform_(torch.empty(1, 1, shape.width)))
        self.blocks = nn.ModuleList(_PaperBlock(shape) for _ in range(shape.depth))
        self.head = nn.Sequential(nn.LayerNorm(shape.width), nn.Linear(shape.width, shape.outputs))

    def forward(self, x_BCSS: Tensor) -> Tensor:
        """Images to logits [B, outputs]."""
        x_BTD = self.patches(x_BCSS).flatten(2).permute(0, 2, 1)
        cls_B1D = self.cls.repeat_interleave(len(x_BTD), dim=0)
        x_BTD = torch.cat((cls_B1D, x_BTD), dim=1) + self.position
        for block in self.blocks:
            x_BTD = block(x_BTD)
        out: Tensor = self.head(x_BTD[:, 0])
        return out


BUILDERS: dict[str, Callable[[VitShape], nn.Module]] = {
    "paper": PaperViT,
    "timm": timm,
    "torchvision": torchvision,
    "vit-pytorch": vit_pytorch,
}
