"""The paper's Vision Transformer in plain torch.nn, one model, attention written out.

Nothing here imports vitbench: it is what the stacked engine is compared with.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """LayerNorm, attention with separate query, key and value, LayerNorm, MLP; two skips."""

    def __init__(self, width: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp1 = nn.Linear(width, mlp)
        self.mlp2 = nn.Linear(mlp, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        batch, tokens, width = x.shape
        head_width = width // self.heads

        def cut(y: Tensor) -> Tensor:
            return y.reshape(batch, tokens, self.heads, head_width).transpose(1, 2)

        y = self.norm1(x)
        query, key, value = cut(self.query(y)), cut(self.key(y)), cut(self.value(y))
        scores = (query @ key.transpose(2, 3) / head_width**0.5).softmax(dim=-1)
        y = (scores @ value).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.out(y)
        return x + self.mlp2(nn.functional.gelu(self.mlp1(self.norm2(x))))


class Vit(nn.Module):
    """Patches by a convolution, CLS, position embedding, blocks, LayerNorm, classifier."""

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        patch_grid: int,
        depth: int,
        heads: int,
        width: int,
        mlp: int,
        outputs: int,
    ) -> None:
        super().__init__()
        px = image_size // patch_grid
        self.patch = nn.Conv2d(channels, width, kernel_size=px, stride=px)
        self.cls = nn.Parameter(torch.rand(1, 1, width))
        self.position = nn.Parameter(torch.rand(1, patch_grid**2 + 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, mlp) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, Y, X] -> [B, O]."""
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls.expand(len(images), -1, -1), x), dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))

    def take(self, state: dict[str, Tensor]) -> Vit:
        """Load the tensors of one member of a stack, given under the stack's names."""
        mine: dict[str, Tensor] = {}
        for name, tensor in state.items():
            stem, _, kind = name.rpartition(".")
            if stem.endswith(".qkv"):
                for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    mine[f"{stem.removesuffix('qkv')}{part}.{kind}"] = piece
            else:
                mine[name] = tensor
        own = self.state_dict()
        self.load_state_dict({n: t.reshape(own[n].shape) for n, t in mine.items()}, strict=True)
        return self

    def decay_groups(self, weight_decay: float) -> list[dict[str, object]]:
        """Parameter groups for torch.optim: decay on weight matrices and the convolution only."""
        embeddings = ("cls", "position")
        decayed = [p for n, p in self.named_parameters() if p.dim() > 1 and n not in embeddings]
        rest = [p for n, p in self.named_parameters() if p.dim() <= 1 or n in embeddings]
        return [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
