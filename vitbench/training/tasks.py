"""Losses and hits per member. Inside the engine sums run over the batch, never over members.

Shape legend: K members, B batch, O outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def losses_and_hits(
    logits_KBO: Tensor, targets_KB: Tensor, *, binary: bool
) -> tuple[Tensor, Tensor]:
    """Loss in nats and correctness of every prediction.

    Args:
        logits_KBO: one output per class, or a single one for a binary label.
        targets_KB: class numbers, or 0 and 1 for a binary label.
        binary: whether the members have one output for a label of their own.

    Returns:
        Cross entropy and correctness (0 or 1), both [K, B] in at least float32.
    """
    logits_KBO = logits_KBO if logits_KBO.dtype == torch.float64 else logits_KBO.float()
    if binary:
        logits_KB = logits_KBO.squeeze(-1)
        truth_KB = targets_KB.to(logits_KB.dtype)
        loss_KB = F.binary_cross_entropy_with_logits(logits_KB, truth_KB, reduction="none")
        return loss_KB, ((logits_KB > 0) == (targets_KB > 0)).to(logits_KB.dtype)
    log_p_KBO = logits_KBO.log_softmax(dim=-1)
    loss_KB = -log_p_KBO.gather(-1, targets_KB.unsqueeze(-1)).squeeze(-1)
    return loss_KB, (logits_KBO.argmax(dim=-1) == targets_KB).to(loss_KB.dtype)
