"""Whether a GPU's own programs can be trusted: only where they were seen to agree with torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor

from vitbench.errors import in_a_line
from vitbench.kernels import ops
from vitbench.rng import generator

logger = logging.getLogger(__name__)

Computed = Mapping[str, Tensor]  # results by name


def agree(what: str, compute: Callable[[bool], Computed], tolerance: float) -> bool:
    """Whether programs can be built here and give what torch's operations give.

    They cannot be where Triton finds no C compiler. Why they are not used is said in one warning.

    Args:
        what: computes, in the words of the warning.
        compute: everything that is to agree; given True, by the programs.
        tolerance: of the distance between two results, relative to the norm of torch's.
    """
    try:
        usual, found = compute(False), compute(True)
    except torch.OutOfMemoryError:
        raise
    except Exception as failure:  # whatever a compiler may throw; torch's operations go on
        logger.warning("%s by torch's own operations, slower: %s", what, in_a_line(failure))
        return False
    for name, tensor in usual.items():
        error = float((found[name] - tensor).norm() / tensor.norm())
        if not error < tolerance:  # NaN is not
            logger.warning(
                "%s by torch's own operations, slower: the GPU's program is off in %s by %.2g of "
                "its norm",
                what,
                name,
                error,
            )
            return False
    return True


@cache
def adam_agrees(device: torch.device) -> bool:
    """Whether `ops.adam_` may update weights there; found out once in a process."""
    usable = device.type == "cuda" and ops.installed()
    return usable and agree("updating weights", lambda way: _updated(device, way), 1e-4)


def _updated(device: torch.device, by_program: bool) -> dict[str, Tensor]:
    """Weights and moments of three members after one update of each rule; the second is dead."""
    members, size, decayed = 3, 3000, 1700
    lr, decay, scale, eps, betas = 0.1, 0.2, 0.7, 1e-3, (0.9, 0.999)
    found: dict[str, Tensor] = {}
    for rule in ("RAdam", "AdamW"):
        drawn = torch.randn(4, members, size, generator=generator(0, "check")).to(device)
        weights, grad, first, second = drawn[0], drawn[1], drawn[2], drawn[3].square()
        if by_program:
            ops.adam_(
                weights,
                grad,
                (first, second),
                lr_K=torch.full((members,), 2 * lr, device=device),
                decay_K=torch.full((members,), decay, device=device),
                alive_K=torch.tensor([True, False, True], device=device),
                factors=torch.tensor([0.5, scale, eps], device=device),
                decayed=decayed,
                betas=betas,
                adamw=rule == "AdamW",
            )
        else:
            for k in (0, 2):
                if rule == "AdamW":
                    weights[k, :decayed] *= 1.0 - lr * decay
                else:
                    grad[k, :decayed] += decay * weights[k, :decayed]
                first[k] = betas[0] * first[k] + (1.0 - betas[0]) * grad[k]
                second[k] = betas[1] * second[k] + (1.0 - betas[1]) * grad[k].square()
                weights[k] -= lr * scale * first[k] / (second[k].sqrt() + eps)
        found |= {f"{rule}'s weights": weights, f"{rule}'s first moment": first}
        found[f"{rule}'s second moment"] = second
    return found
