"""RAdam, AdamW and SGD for K members at once, each with its own learning rate and decay.

Shape legend: K members, P parameters of one member.

The rules are torch.optim's (RAdam and SGD add the decay to the gradient, AdamW shrinks the
weights). What depends only on a step's number is computed beforehand and given to the update as a
`Step`. Members that have diverged keep their weights and moments bit for bit. Weight decay applies
to the first `decayed` columns (see model.layout).

Sources: RAdam arXiv:1908.03265, AdamW arXiv:1711.05101.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitbench.kernels import ops
from vitbench.kernels.check import adam_agrees

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
# Moments, gradient and weights of so many values stay in a core's cache together.
_CHUNK = 1 << 16
_KERNEL = {"beta1": BETA1, "beta2": BETA2, "eps": EPS, "amsgrad": False, "maximize": False}
# torch's Adam kernels correct the bias by 1 - beta**step; at this step that is exactly 1.
_FAR = 1e9


class Factors(NamedTuple):
    """The numbers that an update takes from its step, all without unit."""

    lr: float  # factor of the learning rate (schedule)
    scale: float  # factor of the first moment, bias corrections included
    eps: float = 0.0  # added to the root of the second moment
    # For torch's Adam kernel on a CPU: factor of the learning rate, and the step whose bias it
    # corrects. RAdam's rectification has its own corrections in the factor.
    kernel_lr: float = 0.0
    kernel_step: float = _FAR


@dataclass(frozen=True)
class Step:
    """One update to come."""

    factors: Tensor  # `Factors`, [5], where the update is computed; a captured graph reads them
    adaptive: bool  # divides by the root of the second moment (SGD and RAdam's first do not)
    repeats: bool  # all later updates are the same operations, with other factors


def _factors(rule: str, t: int, lr: float) -> Factors:
    """Of update t (from 1) at a factor of the learning rate; eps is 0 where it is not adaptive."""
    if rule == "sgd":
        return Factors(lr, 1.0)
    correction1, root = 1.0 - BETA1**t, math.sqrt(1.0 - BETA2**t)
    if rule == "adamw":
        return Factors(lr, root / correction1, EPS * root, lr, float(t))
    rho_inf = 2.0 / (1.0 - BETA2) - 1.0
    rho = rho_inf - 2.0 * t * BETA2**t / (1.0 - BETA2**t)
    if rho <= 5.0:
        return Factors(lr, 1.0 / correction1)
    rectify = math.sqrt(
        (rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho)
    )
    scale = rectify * root / correction1
    return Factors(lr, scale, EPS, lr * scale)


class StackedOptimizer(ABC):
    """One update rule for all members of a stack; subclasses say where it is computed.

    Args:
        flat_KP: the weights, updated in place.
        rule: radam, adamw or sgd.
        lr_K, weight_decay_K: peak learning rate and weight decay of each member.
        decayed: columns with weight decay, from the first.
        schedule: factor of the learning rate for each step from 0.
        momentum: of sgd.

    Attributes:
        steps: updates given out by `advance` so far; set it to go on from a checkpoint.
        state: moments by name, each [K, P].

    Raises:
        ValueError: for an unknown rule, or where the lists do not have one entry per member.
    """

    _factor_dtype: torch.dtype | None = None  # that of the weights

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
        if rule not in ("radam", "adamw", "sgd"):
            raise ValueError(f"unknown optimizer {rule!r}")
        self._flat = flat_KP.detach()
        self._rule, self._schedule, self._momentum = rule, schedule, momentum
        self._lr, self._decay, self._decayed = lr_K, weight_decay_K, decayed
        self.steps = 0
        self.state = {"exp_avg": torch.zeros_like(self._flat)}
        if rule != "sgd":
            self.state["exp_avg_sq"] = torch.zeros_like(self._flat)
        self._lr_K1, self._decay_K1 = (
            self._flat.new_tensor(values).unsqueeze(1) for values in (lr_K, weight_decay_K)
        )

    def advance(self, count: int) -> list[Step]:
        """The next `count` steps, whose factors go to the device in one copy."""
        numbers = range(self.steps, self.steps + count)
        self.steps += count
        rows = [_factors(self._rule, n + 1, self._schedule(n)) for n in numbers]
        table = torch.tensor(rows, dtype=self._factor_dtype or self._flat.dtype)
        return [
            Step(factors, row.eps > 0, row.eps > 0 or self._rule == "sgd")
            for factors, row in zip(table.to(self._flat.device), rows, strict=True)
        ]

    @abstractmethod
    def update(self, grad_KP: Tensor, alive_K: Tensor, step: Step) -> None:
        """Update the members that are alive; the others' gradients, overwritten too, may be NaN."""


class CpuOptimizer(StackedOptimizer):
    """Updates member by member, in pieces that fit a core's cache."""

    _factor_dtype = torch.float64  # Python's own numbers

    def update(self, grad_KP: Tensor, alive_K: Tensor, step: Step) -> None:
        numbers = Factors(*step.factors.tolist())
        for k, alive in enumerate(alive_K.tolist()):
            if not alive:
                continue
            if step.adaptive:
                self._adam_kernel(k, grad_KP[k], numbers)
                continue
            for start in range(0, grad_KP.shape[1], _CHUNK):
                self._update_piece(k, slice(start, start + _CHUNK), grad_KP, numbers)

    def _adam_kernel(self, k: int, grad_P: Tensor, numbers: Factors) -> None:
        """RAdam (rectified) or AdamW of member k in one pass over memory, by torch's kernel."""
        adamw, adam = torch._fused_adamw_, torch._fused_adam_
        kernel: Callable[..., None] = adamw if self._rule == "adamw" else adam
        rows = [self._flat[k], grad_P, *(moment_KP[k] for moment_KP in self.state.values())]
        lr, step, decay = self._lr[k] * numbers.kernel_lr, numbers.kernel_step, self._decay[k]
        parts = [(slice(None), 0.0)]
        if decay:
            parts = [(slice(self._decayed), decay), (slice(self._decayed, None), 0.0)]
        for part, part_decay in parts:
            settings = {"lr": lr, "weight_decay": part_decay, **_KERNEL}
            kernel(*([row[part]] for row in rows), [], [torch.tensor(step)], **settings)

    def _update_piece(self, k: int, piece: slice, grad_KP: Tensor, numbers: Factors) -> None:
        """SGD, and RAdam's first steps, which do not divide by the second moment."""
        weights, grad = self._flat[k, piece], grad_KP[k, piece]
        average = self.state["exp_avg"][k, piece]
        lr, decay, decayed = self._lr[k] * numbers.lr, self._decay[k], self._decayed - piece.start
        if decay and decayed > 0:
            grad[:decayed].add_(weights[:decayed], alpha=decay)
        if self._rule == "sgd":
            average.mul_(self._momentum).add_(grad)
        else:
            average.lerp_(grad, 1.0 - BETA1)
            self.state["exp_avg_sq"][k, piece].mul_(BETA2).addcmul_(grad, grad, value=1.0 - BETA2)
        weights.add_(average, alpha=-lr * numbers.scale)


class DeviceOptimizer(StackedOptimizer):
    """Updates without a look at the device's values; a captured graph serves every step.

    Its factors are read where they lie. The host decides by `step.adaptive` alone, which is the
    same for all steps of a graph.
    """

    def __init__(self, flat_KP: Tensor, **settings: Any) -> None:
        super().__init__(flat_KP, **settings)
        self._by_program = adam_agrees(self._flat.device)

    def update(self, grad_KP: Tensor, alive_K: Tensor, step: Step) -> None:
        if step.adaptive and self._by_program:
            ops.adam_(
                self._flat,
                grad_KP,
                (self.state["exp_avg"], self.state["exp_avg_sq"]),
                lr_K=self._lr_K1,
                decay_K=self._decay_K1,
                alive_K=alive_K,
                factors=step.factors,
                decayed=self._decayed,
                betas=(BETA1, BETA2),
                adamw=self._rule == "adamw",
            )
            return
        dead_K1, numbers = ~alive_K.unsqueeze(1), step.factors.unbind(0)
        self._update_all(grad_KP, dead_K1, numbers, adaptive=step.adaptive)

    def _update_all(
        self, grad_KP: Tensor, dead_K1: Tensor, numbers: Sequence[Tensor], *, adaptive: bool
    ) -> None:
        """All members at once, a dozen operations over [K, P]: any rule, any step."""
        lr_factor, scale, eps = numbers[:3]
        lr_K1 = self._lr_K1 * lr_factor
        decayed_KX = self._flat[:, : self._decayed]
        # 0 * NaN is NaN: dead members are left alone by selection, not by a learning rate of 0.
        if any(self._decay):
            if self._rule == "adamw":
                decayed_KX.mul_((1.0 - lr_K1 * self._decay_K1).masked_fill(dead_K1, 1.0))
            else:
                grad_KP[:, : self._decayed].addcmul_(decayed_KX, self._decay_K1)
        grad_KP.masked_fill_(dead_K1, 0.0)

        def factor_K1(alive: float, dead: float) -> Tensor:  # dead: its moments stay as they are
            return torch.full_like(lr_K1, alive).masked_fill_(dead_K1, dead)

        average_KP = self.state["exp_avg"]
        if self._rule == "sgd":
            average_KP.mul_(factor_K1(self._momentum, 1.0)).add_(grad_KP)
        else:
            average_KP.lerp_(grad_KP, factor_K1(1.0 - BETA1, 0.0))
            square_KP = self.state["exp_avg_sq"].mul_(factor_K1(BETA2, 1.0))
            square_KP.addcmul_(grad_KP, grad_KP, value=1.0 - BETA2)
        change_KP = average_KP * (lr_K1 * scale)
        if adaptive:
            change_KP.div_(square_KP.sqrt().add_(eps))
        self._flat.sub_(change_KP.masked_fill_(dead_K1, 0.0))


def clip_rows_(grad_KP: Tensor, max_norm: float) -> Tensor:
    """Scale each member's gradient to a norm of at most `max_norm`; returns the norms before, [K].

    The rule is torch.nn.utils.clip_grad_norm_'s, per member.
    """
    norm_K: Tensor = torch.linalg.vector_norm(grad_KP, dim=1)
    grad_KP.mul_((max_norm / (norm_K + 1e-6)).clamp(max=1.0).unsqueeze(1))
    return norm_K


def schedule_factor(schedule: str, step: int, *, total_steps: int, warmup_steps: float) -> float:
    """Factor for update `step` (from 0): linear warm-up, then constant or half a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        after = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, after)))
    raise ValueError(f"unknown schedule {schedule!r}")
