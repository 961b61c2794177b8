"""Losses and hits per member. Inside the engine sums run over the batch, never over members.

Shape legend: K members, B batch, O outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def losses_and_hits(logits_KBO: Tensor, targets: Tensor, *, binary: bool) -> tuple[Tensor, Tensor]:
    """Loss in nats and correctness of every prediction.

    Args:
        logits_KBO: one output per class, or one per binary label.
        targets: class numbers [K, B]; or 0 and 1, [K, B] for a single label, else [K, B, O].
        binary: whether outputs are labels, each there or not; losses and hits are then means over
            the outputs.

    Returns:
        Cross entropy and correctness (0 or 1), both [K, B] in at least float32.
    """
    logits_KBO = logits_KBO if logits_KBO.dtype == torch.float64 else logits_KBO.float()
    if binary:
        truth_KBO = targets.reshape(logits_KBO.shape).to(logits_KBO.dtype)
        loss_KBO = F.binary_cross_entropy_with_logits(logits_KBO, truth_KBO, reduction="none")
        hit_KBO = ((logits_KBO > 0) == (truth_KBO > 0)).to(logits_KBO.dtype)
        return loss_KBO.mean(-1), hit_KBO.mean(-1)
    log_p_KBO = logits_KBO.log_softmax(dim=-1)
    loss_KB = -log_p_KBO.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return loss_KB, (logits_KBO.argmax(dim=-1) == targets).to(loss_KB.dtype)
