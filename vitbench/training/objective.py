"""What the gradient of training is of: cross entropy, perhaps smoothed, or a user's function.

Tables keep the plain cross entropy, so that arms of different losses can be compared.

Shape legend: K members, B batch, O outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitbench import user_code
from vitbench.config import SharedTrain


class Objective:
    """The loss that trains.

    Attributes:
        is_plain: whether it is the cross entropy that tables have.
    """

    def __init__(self, train: SharedTrain, *, binary: bool) -> None:
        self._smoothing, self._binary = train.label_smoothing, binary
        self._own = None if train.loss is None else user_code.load(train.loss)
        self.is_plain = self._own is None and not self._smoothing

    def __call__(self, logits_KBO: Tensor, targets: Tensor) -> Tensor:
        """The loss of every image, [K, B]; targets as `stack.losses_and_hits` has them."""
        logits_KBO = logits_KBO if logits_KBO.dtype == torch.float64 else logits_KBO.float()
        if self._own is not None:
            losses = [self._own(*each) for each in zip(logits_KBO, targets, strict=True)]
            return torch.stack(losses)
        if self._binary:
            truth_KBO = targets.reshape(logits_KBO.shape).to(logits_KBO.dtype)
            truth_KBO = truth_KBO * (1.0 - self._smoothing) + 0.5 * self._smoothing
            return F.binary_cross_entropy_with_logits(logits_KBO, truth_KBO, reduction="none").mean(
                -1
            )
        log_p_KBO = logits_KBO.log_softmax(dim=-1)
        right_KB = log_p_KBO.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return -(1.0 - self._smoothing) * right_KB - self._smoothing * log_p_KBO.mean(-1)
