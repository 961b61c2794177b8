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
from typing import NamedTuple

import torch
from torch import Tensor

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
# Moments, gradient and weights of so many values stay in a core's cache together.
_CHUNK = 1 << 16
_KERNEL = {"beta1": BETA1, "beta2": BETA2, "eps": EPS, "amsgrad": False, "maximize": False}
# torch's Adam kernels correct the bias by 1 - beta**step; at this step that is exactly 1.
_FAR = 1e9
# Rows shorter than this are not worth a launch each: all members together then.
_LONG_ROW = 1 << 18


class Factors(NamedTuple):
    """The numbers that an update takes from its step, all without unit."""

    lr: float  # factor of the learning rate (schedule)
    scale: float  # factor of the first moment, bias corrections included
    eps: float = 0.0  # added to the root of the second moment
    # For torch's Adam kernel: factor of the learning rate, and the step whose bias it corrects.
    # RAdam's rectification has its own corrections in the factor.
    kernel_lr: float = 0.0
    kernel_step: float = _FAR


@dataclass(frozen=True)
class Step:
    """One update to come.

    Attributes:
        factors: `Factors`, [5], where the update is computed; a captured graph reads them there.
        adaptive: whether it divides by the root of the second moment (SGD and RAdam's first do not)
        repeats: whether all later updates are the same operations, with other factors.
    """

    factors: Tensor
    adaptive: bool
    repeats: bool


def _sgd(t: int, lr_factor: float) -> tuple[Factors, bool]:
    return Factors(lr_factor, 1.0), False


def _adamw(t: int, lr_factor: float) -> tuple[Factors, bool]:
    root = math.sqrt(1.0 - BETA2**t)
    scale = root / (1.0 - BETA1**t)
    return Factors(lr_factor, scale, EPS * root, lr_factor, float(t)), True


def _radam(t: int, lr_factor: float) -> tuple[Factors, bool]:
    correction1, correction2 = 1.0 - BETA1**t, 1.0 - BETA2**t
    rho_inf = 2.0 / (1.0 - BETA2) - 1.0
    rho = rho_inf - 2.0 * t * BETA2**t / correction2
    if rho <= 5.0:
        return Factors(lr_factor, 1.0 / correction1), False
    rectify = math.sqrt(
        (rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho)
    )
    scale = rectify * math.sqrt(correction2) / correction1
    return Factors(lr_factor, scale, EPS, lr_factor * scale), True


@dataclass(frozen=True)
class Rule:
    """One update rule.

    Attributes:
        factors: of update t (from 1) at a factor of the learning rate, and whether it is adaptive.
        second_moment: whether it keeps the mean of squared gradients.
        decouples_decay: whether the decay shrinks the weights instead of adding to the gradient.
    """

    factors: Callable[[int, float], tuple[Factors, bool]]
    second_moment: bool = True
    decouples_decay: bool = False


# Each optimizer of config.SharedTrain.optimizer.
RULES = {
    "radam": Rule(_radam),
    "adamw": Rule(_adamw, decouples_decay=True),
    "sgd": Rule(_sgd, second_moment=False),
}


class StackedOptimizer(ABC):
    """One update rule for all members of a stack; subclasses say where it is computed.

    Args:
        flat_KP: the weights, updated in place.
        rule: a key of `RULES`.
        lr_K: peak learning rate of each member.
        weight_decay_K: weight decay of each member.
        decayed: columns with weight decay, from the first.
        schedule: factor of the learning rate for each step from 0.
        momentum: of sgd.

    Attributes:
        steps: updates given out by `advance` so far; set it to go on from a checkpoint.

    Raises:
        ValueError: for an unknown rule, or where the lists do not have one entry per member.
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
        if rule not in RULES:
            raise ValueError(f"unknown optimizer {rule!r}")
        self._flat = flat_KP.detach()
        self._rule, self._schedule, self._momentum = RULES[rule], schedule, momentum
        self._lr, self._decay, self._decayed = lr_K, weight_decay_K, decayed
        self.steps = 0
        self.exp_avg = torch.zeros_like(flat_KP)
        self.exp_avg_sq = torch.zeros_like(
            self.exp_avg if self._rule.second_moment else torch.empty(0)
        )
        device, dtype = flat_KP.device, flat_KP.dtype
        self._lr_K1 = torch.tensor(lr_K, device=device, dtype=dtype).unsqueeze(1)
        self._decay_K1 = torch.tensor(weight_decay_K, device=device, dtype=dtype).unsqueeze(1)

    @property
    def _factor_dtype(self) -> torch.dtype:
        return self._flat.dtype

    @property
    def state(self) -> dict[str, Tensor]:
        """Moments by name, each [K, P]."""
        moments = {"exp_avg": self.exp_avg}
        return {**moments, "exp_avg_sq": self.exp_avg_sq} if self._rule.second_moment else moments

    def advance(self, count: int) -> list[Step]:
        """The next `count` steps, whose factors go to the device in one copy."""
        numbers = range(self.steps, self.steps + count)
        self.steps += count
        rows = [self._rule.factors(n + 1, self._schedule(n)) for n in numbers]
        table = torch.tensor([row for row, _ in rows], dtype=self._factor_dtype)
        return [
            Step(row, adaptive, adaptive or not self._rule.second_moment)
            for row, (_, adaptive) in zip(table.to(self._flat.device), rows, strict=True)
        ]

    @abstractmethod
    def update(self, grad_KP: Tensor, alive_K: Tensor, step: Step) -> None:
        """Update the weights and moments of the members that are alive.

        Args:
            grad_KP: gradients; may be overwritten.
            alive_K: bool; the others' gradients may be NaN.
            step: from `advance`.
        """

    def _adam_kernel(
        self, k: int, grad_P: Tensor, lr: float | Tensor, step: Tensor, skip: Tensor | None = None
    ) -> None:
        """RAdam (rectified) or AdamW of one member in one pass over memory, by torch's kernel.

        Args:
            k: the member.
            grad_P: its gradient.
            lr: its learning rate times `Factors.kernel_lr`; a tensor where a graph is captured.
            step: `Factors.kernel_step`.
            skip: 1 leaves the member as it is.
        """
        adamw, adam = torch._fused_adamw_, torch._fused_adam_
        kernel: Callable[..., None] = adamw if self._rule.decouples_decay else adam
        rows = (self._flat[k], grad_P, self.exp_avg[k], self.exp_avg_sq[k])
        columns, decay = grad_P.shape[0], self._decay[k]
        parts = [(0, columns, 0.0)]
        if decay:
            parts = [(0, self._decayed, decay), (self._decayed, columns, 0.0)]
        for start, stop, part_decay in parts:
            kernel_rows = ([row[start:stop]] for row in rows)
            settings = {"lr": lr, "weight_decay": part_decay, "found_inf": skip, **_KERNEL}
            kernel(*kernel_rows, [], [step], **settings)


class CpuOptimizer(StackedOptimizer):
    """Updates member by member, in pieces that fit a core's cache."""

    _factor_dtype = torch.float64  # Python's own numbers

    def update(self, grad_KP: Tensor, alive_K: Tensor, step: Step) -> None:
        """Update the members that are alive, one after another."""
        numbers = Factors(*step.factors.tolist())
        for k, alive in enumerate(alive_K.tolist()):
            if not alive:
                continue
            if step.adaptive:
                count = torch.tensor(numbers.kernel_step)
                self._adam_kernel(k, grad_KP[k], self._lr[k] * numbers.kernel_lr, count)
                continue
            for start in range(0, grad_KP.shape[1], _CHUNK):
                self._update_piece(k, slice(start, start + _CHUNK), grad_KP, numbers)

    def _update_piece(self, k: int, piece: slice, grad_KP: Tensor, numbers: Factors) -> None:
        """SGD, and RAdam's first steps, which do not divide by the second moment."""
        weights, grad, average = self._flat[k, piece], grad_KP[k, piece], self.exp_avg[k, piece]
        lr, decay, decayed = self._lr[k] * numbers.lr, self._decay[k], self._decayed - piece.start
        if decay and decayed > 0:
            grad[:decayed].add_(weights[:decayed], alpha=decay)
        if not self._rule.second_moment:
            average.mul_(self._momentum).add_(grad)
        else:
            average.lerp_(grad, 1.0 - BETA1)
            self.exp_avg_sq[k, piece].mul_(BETA2).addcmul_(grad, grad, value=1.0 - BETA2)
        weights.add_(average, alpha=-lr * numbers.scale)


class DeviceOptimizer(StackedOptimizer):
    """Updates without a look at the device's values; a captured graph serves every step.

    Its factors are read where they lie. The host decides by `step.adaptive` alone, which is the
    same for all steps of a graph.
    """

    def update(self, grad_KP: Tensor, alive_K: Tensor, step: Step) -> None:
        """Update all members at once, or each by torch's kernel where its row is long."""
        dead_K1, numbers = ~alive_K.unsqueeze(1), step.factors.unbind(0)
        if not step.adaptive or grad_KP.shape[1] < _LONG_ROW:
            self._update_all(grad_KP, dead_K1, numbers, adaptive=step.adaptive)
            return
        *_, kernel_lr, kernel_step = numbers
        lr_K1, skip_K1, count = self._lr_K1 * kernel_lr, dead_K1.float(), kernel_step.float()
        for k, grad_P in enumerate(grad_KP):
            self._adam_kernel(k, grad_P, lr_K1[k, 0], count, skip_K1[k, 0])

    def _update_all(
        self, grad_KP: Tensor, dead_K1: Tensor, numbers: Sequence[Tensor], *, adaptive: bool
    ) -> None:
        """All members at once, a dozen operations over [K, P]: any rule, any step."""
        lr_factor, scale, eps = numbers[:3]
        lr_K1 = self._lr_K1 * lr_factor
        decayed_KX = self._flat[:, : self._decayed]
        # 0 * NaN is NaN: dead members are left alone by selection, not by a learning rate of 0.
        if any(self._decay):
            if self._rule.decouples_decay:
                decayed_KX.mul_((1.0 - lr_K1 * self._decay_K1).masked_fill(dead_K1, 1.0))
            else:
                grad_KP[:, : self._decayed].addcmul_(decayed_KX, self._decay_K1)
        grad_KP.masked_fill_(dead_K1, 0.0)

        def factor_K1(alive: float, dead: float) -> Tensor:  # dead: its moments stay as they are
            return torch.full_like(lr_K1, alive).masked_fill_(dead_K1, dead)

        if not self._rule.second_moment:
            self.exp_avg.mul_(factor_K1(self._momentum, 1.0)).add_(grad_KP)
        else:
            self.exp_avg.lerp_(grad_KP, factor_K1(1.0 - BETA1, 0.0))
            self.exp_avg_sq.mul_(factor_K1(BETA2, 1.0)).addcmul_(
                grad_KP, grad_KP, value=1.0 - BETA2
            )
        change_KP = self.exp_avg * (lr_K1 * scale)
        if adaptive:
            change_KP.div_(self.exp_avg_sq.sqrt().add_(eps))
        self._flat.sub_(change_KP.masked_fill_(dead_K1, 0.0))


def clip_rows_(grad_KP: Tensor, max_norm: float) -> Tensor:
    """Scale each member's gradient to a norm of at most `max_norm`; returns the norms before, [K].

    The rule is torch.nn.utils.clip_grad_norm_'s, per member.
    """
    norm_K: Tensor = torch.linalg.vector_norm(grad_KP, dim=1)
    grad_KP.mul_((max_norm / (norm_K + 1e-6)).clamp(max=1.0).unsqueeze(1))
    return norm_K
