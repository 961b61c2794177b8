"""A trained model as a plain torch module, with its preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitbench.training.checkpoint import load_member


class PlainModel(nn.Module):
    """Images [B, C, Y, X] -> logits [B, outputs]; uint8 images, or floats from 0 to 1.

    Attributes:
        outputs: what the logits are of: classes, or labels (the logit of having it).
        info: what was written with the weights: trial_id, config, epoch, metrics, images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, info: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.info = model, info
        images, label = info["images"], info["label"]
        names = [label] if label is not None else images["classes"] or images["labels"]
        self.outputs: tuple[str, ...] = tuple(names)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(images[name]).view(-1, 1, 1))

    @classmethod
    def load(cls, checkpoint: Path) -> PlainModel:
        """Read a checkpoint; see `load_member` for what it raises."""
        return cls(*load_member(checkpoint)).eval()

    def forward(self, images_BCYX: Tensor) -> Tensor:
        """Logits of images, which are normalised as those of the training were."""
        pixels = images_BCYX.float()
        if images_BCYX.dtype == torch.uint8:
            pixels = pixels / 255.0
        logits: Tensor = self.model(((pixels - self.mean) / self.std).unsqueeze(0))
        return logits.squeeze(0)
