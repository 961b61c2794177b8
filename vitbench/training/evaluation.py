"""What is measured of a trained stack beside its losses: predictions, calibration, layers.

Shape legend: K members, N images, B batch, O outputs, P parameters, H heads, T tokens.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from vitbench.model.attention import attend_stack
from vitbench.model.vit import StackedVit
from vitbench.training.stack import Stack, losses_and_hits

_BINS = 15
_LAYER_IMAGES = 64  # training images that layers are measured on


@dataclass(frozen=True)
class Predictions:
    """What one model says of the test images.

    Attributes:
        logits_NO: one output per class, or per binary label.
        targets_NO: class numbers [N, 1]; or 0 and 1 [N, O].
        binary: whether outputs are labels, each there or not.
    """

    logits_NO: Tensor
    targets_NO: Tensor
    binary: bool

    def probabilities(self) -> Tensor:
        """Of every class or label, [N, O], in float64."""
        logits_NO = self.logits_NO.double()
        return logits_NO.sigmoid() if self.binary else logits_NO.softmax(dim=1)

    def calibration(self) -> tuple[float, float]:
        """Expected calibration error and Brier score; of labels, over all images and labels.

        ECE = sum over 15 equal bins of confidence of (share of answers in the bin) x
        |accuracy - mean confidence| (Guo et al. 2017, arXiv:1706.04599). The Brier score (1950) is
        the squared error of the probabilities: summed over classes, of a label that of its
        presence.
        """
        p_NO = self.probabilities()
        if self.binary:
            confidence = torch.maximum(p_NO, 1.0 - p_NO).flatten()
            hit = ((p_NO > 0.5) == (self.targets_NO > 0)).flatten().double()
            brier = (p_NO - self.targets_NO) ** 2
        else:
            confidence, answer_N = p_NO.max(dim=1)
            hit = (answer_N == self.targets_NO[:, 0]).double()
            truth_NO = torch.nn.functional.one_hot(self.targets_NO[:, 0], p_NO.shape[1])
            brier = ((p_NO - truth_NO) ** 2).sum(dim=1)
        bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
        gap = torch.zeros(_BINS, dtype=torch.float64).index_add_(0, bins, hit - confidence)
        return float(gap.abs().sum() / len(confidence)), float(brier.mean())

    def table(self, labels: Sequence[str]) -> pd.DataFrame:
        """A row per image, or per image and label.

        Columns: `test_index` (in the test images that the model was judged on), `label` (of binary
        outputs), `truth`, `predicted`, `probability` (of the class predicted, or of the label),
        `loss` (nats).
        """
        p_NO, logits_NO = self.probabilities(), self.logits_NO.double()
        count, outputs = p_NO.shape
        if not self.binary:
            loss_KN, _ = losses_and_hits(logits_NO[None], self.targets_NO[None, :, 0], binary=False)
            best = p_NO.max(dim=1)
            return pd.DataFrame(
                {
                    "test_index": torch.arange(count, dtype=torch.int32).numpy(),
                    "truth": self.targets_NO[:, 0].short().numpy(),
                    "predicted": best.indices.short().numpy(),
                    "probability": best.values.float().numpy(),
                    "loss": loss_KN[0].float().numpy(),
                }
            )
        loss_NO = torch.nn.functional.binary_cross_entropy_with_logits(
            logits_NO, self.targets_NO.double(), reduction="none"
        )
        return pd.DataFrame(
            {
                "test_index": torch.arange(count, dtype=torch.int32).repeat_interleave(outputs),
                "label": pd.Categorical(list(labels) * count),
                "truth": self.targets_NO.flatten().short().numpy(),
                "predicted": (p_NO > 0.5).flatten().short().numpy(),
                "probability": p_NO.flatten().float().numpy(),
                "loss": loss_NO.flatten().float().numpy(),
            }
        )


def predict(stack: Stack, values: Mapping[str, Tensor]) -> list[Predictions]:
    """What each member, the model's `variables` being these, says of its test images."""
    with stack.weights(values):
        logits_KNO, targets = stack.predictions("test"), stack.targets("test")
    return [
        Predictions(logits_NO, of_member.reshape(len(logits_NO), -1), stack.binary)
        for logits_NO, of_member in zip(logits_KNO, targets, strict=True)
    ]


def as_parquet(parts: Sequence[pd.DataFrame]) -> bytes:
    """Predictions of one model at several epochs as one file."""
    content = io.BytesIO()
    pd.concat(parts, ignore_index=True).to_parquet(content, index=False)
    return content.getvalue()


@dataclass(frozen=True)
class LayerMeasures:
    """Of one model, a number for each layer from first to last.

    Attributes:
        attention_entropy: nats, mean over images, heads and tokens; ln T is uniform.
        grad_norm: Euclidean norm of the gradient of the mean loss.
        weight_norm: Euclidean norm of the parameters.
    """

    attention_entropy: list[float]
    grad_norm: list[float]
    weight_norm: list[float]


def measure_layers(stack: Stack) -> list[LayerMeasures]:
    """Measure the layers of every ViT on the first 64 training images, without dropout."""
    model = stack.model
    if not isinstance(model, StackedVit):
        raise ValueError("layers are measured of the Vision Transformer alone")
    pixels, targets = stack.first_training_images(_LAYER_IMAGES)
    with torch.enable_grad():
        seen, logits_KBO = attend_stack(model, pixels)
        loss_KB, _ = losses_and_hits(logits_KBO, targets, binary=stack.binary)
        (grad_KP,) = torch.autograd.grad(loss_KB.mean(dim=1).sum(), model.flat)
    entropy_LK = torch.stack([_entropy(weights, model.members) for weights in seen])
    grad_LK, weight_LK = (
        torch.stack([_norm(model.tensors(flat_KP), number) for number in range(model.shape.depth)])
        for flat_KP in (grad_KP, model.flat.detach())
    )
    return [
        LayerMeasures(*(measured[:, k].tolist() for measured in (entropy_LK, grad_LK, weight_LK)))
        for k in range(model.members)
    ]


def _entropy(weights: Tensor, members: int) -> Tensor:
    """Mean entropy of attention rows [K * B, H, T, T] of each member, [K]."""
    rows = -torch.xlogy(weights.detach(), weights.detach()).sum(dim=-1)
    return rows.view(members, -1).mean(dim=1)


def _norm(tensors: dict[str, Tensor], number: int) -> Tensor:
    """Norm of all tensors of a block together, [K]."""
    squares = [
        tensor.float().flatten(1).square().sum(dim=1)
        for name, tensor in tensors.items()
        if name.startswith(f"blocks.{number}.")
    ]
    return torch.stack(squares).sum(dim=0).sqrt()
