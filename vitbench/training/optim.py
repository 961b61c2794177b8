"""RAdam, AdamW and SGD for K members at once, each with its own learning rate and decay.

Shape legend: K members, P parameters of one member.

The rules are torch.optim's (RAdam and SGD add the decay to the gradient, AdamW shrinks the
weights). Everything that depends only on the step's number is computed beforehand, so an update
needs no host: on CUDA it can be captured in a graph. Members that have diverged are left alone
bit for bit. Weight decay applies to the first `decayed` columns (see model.vit.layout).

Sources: RAdam arXiv:1908.03265, AdamW arXiv:1711.05101.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
# Moments, gradient and weights of so many values stay in a core's cache together.
_CHUNK = 1 << 16
# torch's Adam kernels correct the bias by 1 - beta**step; at this step that is exactly 1.
_FAR = 1e9
# Rows shorter than this are not worth a launch each: all members together then.
_LONG_ROW = 1 << 18


@dataclass(frozen=True)
class Step:
    """What an update needs to know of its step: factors on the host."""

    lr: float  # factor of the learning rate (schedule)
    scale: float  # factor of the first moment, bias corrections included
    eps: float  # added to the root of the second moment
    adaptive: float  # 1 divides by the root of the second moment, 0 does not (RAdam's first steps)
    # For torch's Adam kernel, where adaptive: factor of the learning rate, and the step whose bias
    # it corrects. RAdam's rectification has its own corrections in the factor.
    kernel_lr: float = 0.0
    kernel_step: float = _FAR


_KERNEL_LR, _KERNEL_STEP = 4, 5  # their places in a row of `upcoming`


def coefficients(rule: str, t: int, lr_factor: float) -> Step:
    """Factors of update t (from 1) for `radam`, `adamw` or `sgd`."""
    if rule == "sgd":
        return Step(lr_factor, 1.0, 0.0, 0.0)
    correction1, correction2 = 1.0 - BETA1**t, 1.0 - BETA2**t
    if rule == "adamw":
        root = math.sqrt(correction2)
        return Step(lr_factor, root / correction1, EPS * root, 1.0, lr_factor, float(t))
    if rule != "radam":
        raise ValueError(f"unknown optimizer {rule!r}")
    rho_inf = 2.0 / (1.0 - BETA2) - 1.0
    rho = rho_inf - 2.0 * t * BETA2**t / correction2
    if rho <= 5.0:
        return Step(lr_factor, 1.0 / correction1, EPS, 0.0)
    rectify = math.sqrt(
        (rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho)
    )
    scale = rectify * math.sqrt(correction2) / correction1
    return Step(lr_factor, scale, EPS, 1.0, lr_factor * scale)


class StackedOptimizer:
    """One update rule for all members of a stack.

    Args:
        flat_KP: the weights, updated in place.
        rule: radam, adamw or sgd.
        lr_K: peak learning rate of each member.
        weight_decay_K: weight decay of each member.
        decayed: columns with weight decay, from the first.
        schedule: factor of the learning rate for each step from 0.
        momentum: of sgd.
    """

    def __init__(
        self,
        flat_KP: Tensor,
        *,
        rule: str,
        lr_K: list[float],
        weight_decay_K: list[float],
        decayed: int,
        schedule: Callable[[int], float],
        momentum: float = 0.9,
    ) -> None:
        if not len(lr_K) == len(weight_decay_K) == flat_KP.shape[0]:
            raise ValueError(
                f"{flat_KP.shape[0]} members need as many learning rates and decays, "
                f"got {len(lr_K)} and {len(weight_decay_K)}"
            )
        coefficients(rule, 1, 1.0)  # an unknown rule ends here
        self._flat = flat_KP
        self._rule = rule
        self._lr = lr_K
        self._decay = weight_decay_K
        self._decayed = decayed
        self._schedule = schedule
        self._momentum = momentum
        self.steps = 0
        self.exp_avg = torch.zeros_like(flat_KP)
        self.exp_avg_sq = torch.zeros_like(flat_KP) if rule != "sgd" else torch.empty(0)
        device, dtype = flat_KP.device, flat_KP.dtype
        self._lr_K1 = torch.tensor(lr_K, device=device, dtype=dtype).unsqueeze(1)
        self._decay_K1 = torch.tensor(weight_decay_K, device=device, dtype=dtype).unsqueeze(1)
        self._lr_K = self._lr_K1.squeeze(1)
        # This step's factors, a row of `upcoming`.
        self._now = torch.zeros(len(fields(Step)), device=device, dtype=dtype)

    @property
    def state(self) -> dict[str, Tensor]:
        """Moments by name, each [K, P]."""
        moments = {"exp_avg": self.exp_avg}
        return moments if self._rule == "sgd" else {**moments, "exp_avg_sq": self.exp_avg_sq}

    def advance(self, row: Tensor | None = None) -> Step:
        """Begin the next step.

        Args:
            row: this step's row of `upcoming`; the update on the device reads it from a buffer.
        """
        self.steps += 1
        if row is not None:
            self._now.copy_(row)
        return self._step(self.steps)

    def repeats(self, step: Step) -> bool:
        """Whether all later steps go this step's way: RAdam's first do not."""
        return self._rule == "sgd" or bool(step.adaptive)

    def upcoming(self, count: int) -> Tensor:
        """Factors of the next steps on the device, [count, fields of Step]: one copy an epoch."""
        names = [field.name for field in fields(Step)]  # astuple copies deeply: ten times as long
        steps = (self._step(self.steps + 1 + ahead) for ahead in range(count))
        rows = [[getattr(step, name) for name in names] for step in steps]
        return torch.tensor(rows, dtype=self._now.dtype).to(self._now.device)

    def _step(self, t: int) -> Step:
        return coefficients(self._rule, t, self._schedule(t - 1))

    def update_rows(self, grad_KP: Tensor, alive: list[bool], step: Step) -> None:
        """Update on the host's terms: member by member, in pieces that fit a core's cache."""
        for k, is_alive in enumerate(alive):
            if not is_alive:
                continue
            if step.adaptive:
                count = torch.tensor(step.kernel_step)
                self._adam_kernel(k, grad_KP[k], self._lr[k] * step.kernel_lr, count)
                continue
            for start in range(0, grad_KP.shape[1], _CHUNK):
                stop = min(start + _CHUNK, grad_KP.shape[1])
                decayed = min(max(self._decayed - start, 0), stop - start)
                self._update_piece(k, slice(start, stop), decayed, grad_KP, step)

    def _adam_kernel(
        self,
        k: int,
        grad_P: Tensor,
        lr: float | Tensor,
        count: Tensor,
        skip: Tensor | None = None,
    ) -> None:
        """RAdam (rectified) or AdamW of one member in one pass over memory, by torch's kernel.

        Args:
            k: the member.
            grad_P: its gradient.
            lr: its learning rate times `Step.kernel_lr`; on the device where a graph is captured.
            count: `Step.kernel_step`.
            skip: 1 leaves the member as it is.
        """
        kernel = torch._fused_adamw_ if self._rule == "adamw" else torch._fused_adam_
        rows = (self._flat.detach()[k], grad_P, self.exp_avg[k], self.exp_avg_sq[k])
        columns, decay = grad_P.shape[0], self._decay[k]
        parts = [(0, columns, 0.0)]
        if decay:
            parts = [(0, self._decayed, decay), (self._decayed, columns, 0.0)]
        for start, stop, part_decay in parts:
            weights, grad, average, square = ([row[start:stop]] for row in rows)
            kernel(
                weights,
                grad,
                average,
                square,
                [],
                [count],
                lr=lr,
                beta1=BETA1,
                beta2=BETA2,
                weight_decay=part_decay,
                eps=EPS,
                amsgrad=False,
                maximize=False,
                found_inf=skip,
            )

    def _update_piece(
        self, k: int, piece: slice, decayed: int, grad_KP: Tensor, step: Step
    ) -> None:
        """SGD, and RAdam's first steps, which do not divide by the second moment."""
        weights, grad = self._flat.detach()[k, piece], grad_KP[k, piece]
        average = self.exp_avg[k, piece]
        lr, decay = self._lr[k] * step.lr, self._decay[k]
        if decay and decayed:
            grad[:decayed].add_(weights[:decayed], alpha=decay)
        if self._rule == "sgd":
            average.mul_(self._momentum).add_(grad)
            weights.add_(average, alpha=-lr)
            return
        square = self.exp_avg_sq[k, piece]
        average.lerp_(grad, 1.0 - BETA1)
        square.mul_(BETA2).addcmul_(grad, grad, value=1.0 - BETA2)
        weights.add_(average, alpha=-lr * step.scale)

    def update_on_device(self, grad_KP: Tensor, alive_K: Tensor, step: Step) -> None:
        """Update without a look at the device's values; the same captured graph serves every step.

        The step's factors are read from the buffer that `advance` filled. `step` says only which
        way to go, and that is the same for all steps of a graph.
        """
        if not (step.adaptive and grad_KP.shape[1] >= _LONG_ROW):
            self.update_stack(grad_KP, alive_K)
            return
        lr_K = self._lr_K * self._now[_KERNEL_LR]
        dead_K, count = (~alive_K).float(), self._now[_KERNEL_STEP].float()
        for k in range(grad_KP.shape[0]):
            self._adam_kernel(k, grad_KP[k], lr_K[k], count, dead_K[k])

    def update_stack(self, grad_KP: Tensor, alive_K: Tensor) -> None:
        """Update all members at once, a dozen operations over [K, P]: any rule, any step."""
        weights = self._flat.detach()
        lr_factor, scale, eps, adaptive = self._now[:_KERNEL_LR].unbind(0)
        lr_K1 = self._lr_K1 * lr_factor
        d = self._decayed
        # 0 * NaN is NaN: dead members are left alone by selection, not by a learning rate of 0.
        dead_K1 = ~alive_K.unsqueeze(1)
        if any(self._decay):
            if self._rule == "adamw":
                shrink_K1 = (1.0 - lr_K1 * self._decay_K1).masked_fill(dead_K1, 1.0)
                weights[:, :d].mul_(shrink_K1)
            else:
                grad_KP[:, :d].addcmul_(weights[:, :d], self._decay_K1)
        grad_KP.masked_fill_(dead_K1, 0.0)

        def factor_K1(alive: float, dead: float) -> Tensor:  # dead: its moments stay as they are
            return torch.full_like(lr_K1, alive).masked_fill_(dead_K1, dead)

        if self._rule == "sgd":
            self.exp_avg.mul_(factor_K1(self._momentum, 1.0)).add_(grad_KP)
            change_KP = self.exp_avg * lr_K1
        else:
            self.exp_avg.lerp_(grad_KP, factor_K1(1.0 - BETA1, 0.0))
            self.exp_avg_sq.mul_(factor_K1(BETA2, 1.0)).addcmul_(
                grad_KP, grad_KP, value=1.0 - BETA2
            )
            # adaptive is 1 or 0: the divisor is the root of the second moment, or 1
            divisor = self.exp_avg_sq.sqrt().add_(eps).mul_(adaptive).add_(1.0 - adaptive)
            change_KP = (self.exp_avg * (lr_K1 * scale)).div_(divisor)
        weights.sub_(change_KP.masked_fill_(dead_K1, 0.0))


def clip_rows_(grad_KP: Tensor, max_norm: float) -> Tensor:
    """Scale each member's gradient to a norm of at most `max_norm`; returns the norms before, [K].

    The rule is torch.nn.utils.clip_grad_norm_'s, per member.
    """
    norm_K: Tensor = torch.linalg.vector_norm(grad_KP, dim=1)
    grad_KP.mul_((max_norm / (norm_K + 1e-6)).clamp(max=1.0).unsqueeze(1))
    return norm_K
