"""Builders under the contract of `model.build`, as users write them: small, for 8x8 images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def resnet(*, channels: int, image_size: int, outputs: int, width: int = 4) -> nn.Module:
    """Two residual blocks of torchvision, with BatchNorm in every one."""
    from torchvision.models.resnet import BasicBlock

    wide = 2 * width
    down = nn.Sequential(nn.Conv2d(width, wide, 1, stride=2), nn.BatchNorm2d(wide))
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        BasicBlock(width, width),
        BasicBlock(width, wide, stride=2, downsample=down),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(wide, outputs),
    )


class Encoder(nn.Module):
    """torch's own TransformerEncoder over patches, mean of the tokens."""

    def __init__(self, channels: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.patch = nn.Conv2d(channels, 8, kernel_size=4, stride=4)
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, Y, X] -> [B, O]."""
        tokens = self.patch(images).flatten(2).transpose(1, 2)
        logits: Tensor = self.head(self.encoder(tokens).mean(dim=1))
        return logits


def transformer(*, channels: int, image_size: int, outputs: int) -> nn.Module:
    """Without dropout, so that it can be stacked."""
    return Encoder(channels, outputs, dropout=0.0)


def dropout(*, channels: int, image_size: int, outputs: int) -> nn.Module:
    """The same with dropout: it draws from torch's global stream."""
    return Encoder(channels, outputs, dropout=0.3)


def timm_vit(*, channels: int, image_size: int, outputs: int) -> nn.Module:
    """timm's ViT, with its fused attention and its truncated normal weights."""
    import timm

    shape: dict[str, Any] = {"embed_dim": 8, "depth": 2, "num_heads": 2, "patch_size": 4}
    module: nn.Module = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=image_size,
        in_chans=channels,
        num_classes=outputs,
        **shape,
    )
    return module


class ReadsBack(nn.Module):
    """Takes a value out of a tensor, which vmap cannot."""

    def __init__(self, pixels: int, outputs: int) -> None:
        super().__init__()
        self.line = nn.Linear(pixels, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, Y, X] -> [B, O]."""
        logits: Tensor = self.line(images.flatten(1))
        return logits / max(1.0, logits.abs().max().item())


def reads_back(*, channels: int, image_size: int, outputs: int) -> nn.Module:
    """A model whose scale depends on a value."""
    return ReadsBack(channels * image_size**2, outputs)


SAMPLES: dict[str, Callable[..., nn.Module]] = {
    "resnet": resnet,
    "transformer": transformer,
    "timm_vit": timm_vit,
    "dropout": dropout,
}


def raising(*, channels: int, image_size: int, outputs: int) -> nn.Module:
    """Raises while it builds."""
    raise RuntimeError("no such luck")


def torch_number() -> float:
    """A draw from torch's global stream."""
    return float(torch.rand(()))


class Pooled(nn.Module):
    """One layer of attention over patches without a CLS token, which it shows."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(channels, 8, kernel_size=4, stride=4)
        self.look = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, Y, X] -> [B, O]."""
        x = self.patch(images).flatten(2).transpose(1, 2)
        logits: Tensor = self.head(self.look(x, x, x, need_weights=False)[0].mean(dim=1))
        return logits

    def attention_maps(self, images: Tensor) -> Tensor:
        """[B, C, Y, X] -> [L, B, H, T, T]."""
        x = self.patch(images).flatten(2).transpose(1, 2)
        maps: Tensor = self.look(x, x, x, average_attn_weights=False)[1]
        return maps.unsqueeze(0)


def pooled(*, channels: int, image_size: int, outputs: int) -> nn.Module:
    """A model that shows its attention."""
    return Pooled(channels, outputs)
