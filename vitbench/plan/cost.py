"""What training costs before it runs: parameters and FLOPs, of the ViT in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vitbench.config import Model, SharedTrain, TrialConfig


@dataclass(frozen=True)
class Cost:
    """Of one model, on one image."""

    parameters: int
    forward_flops: int  # of the matrix products and convolutions; a multiply-add is 2


# Builds a user's model and counts. Set where that may be imported: this package knows no torch.
_measure: Callable[[Model, int], Cost] | None = None


def measure_built_with(measure: Callable[[Model, int], Cost]) -> None:
    """Let the cost of builders' models be found by this function of model and image size."""
    global _measure
    _measure = measure


def _built(model: Model, image_size: int) -> Cost:
    if _measure is None:
        raise ValueError(f"the cost of {model.build} is not known in this process")
    return _measure(model, image_size)


def parameter_count(model: Model, image_size: int, channels: int, outputs: int) -> int:
    """Parameters of one model; 5,356,618 for the paper's Table 1 (1 channel, 10 outputs)."""
    if model.build is not None:
        return _built(model, image_size).parameters
    width, mlp = model.width, model.mlp_width
    patch = (image_size // model.patch_grid) ** 2 * channels
    embedding = patch * width + width + width + (model.patch_grid**2 + 1) * width
    attention = 4 * (width * width + width)
    block = attention + 2 * width * mlp + mlp + width + 4 * width
    return embedding + model.depth * block + 2 * width + width * outputs + outputs


def forward_flops(model: Model, image_size: int, channels: int, outputs: int) -> int:
    """FLOPs of the matrix products of one forward pass over one image (a multiply-add is 2)."""
    if model.build is not None:
        return _built(model, image_size).forward_flops
    width, mlp, patches = model.width, model.mlp_width, model.patch_grid**2
    tokens = patches + 1
    patch = (image_size // model.patch_grid) ** 2 * channels
    projections = 4 * tokens * width * width
    attention = 2 * tokens * tokens * width
    block = projections + attention + 2 * tokens * width * mlp
    return 2 * (patches * patch * width + model.depth * block + width * outputs)


def epoch_images(train: SharedTrain) -> int:
    """Images of one epoch of one model; 1 where `train_images` is not known yet."""
    return 2 * train.matched if train.matched is not None else train.train_images or 1


def train_flops(trial: TrialConfig, *, images: int, channels: int = 1, outputs: int = 10) -> float:
    """FLOPs of training one model to its last epoch: a backward pass costs two forward passes."""
    forward = forward_flops(trial.model, trial.dataset.image_size, channels, outputs)
    return 3.0 * forward * images * trial.train.epochs
