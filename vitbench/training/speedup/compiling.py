"""torch.compile where it pays: for the batch that repeats, and only as long as it is faster."""

from __future__ import annotations

import logging
import time
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from vitbench.errors import in_a_line

logger = logging.getLogger(__name__)

When = bool | Literal["auto"]

# What compiling is taken to cost and to save before this process has measured it.
_EXPECTED_S, _EXPECTED_GAIN = 90.0, 0.2
_MIN_GAIN = 0.02  # less than this share of an epoch, and the plain way is kept
_EPOCHS_EACH = 2  # epochs by which a way is judged: the better one, since the first one captures


def compile_for(model: nn.Module, images_KBCYX: Tensor) -> tuple[nn.Module, float] | None:
    """Compile forward and backward for batches of this shape.

    Other shapes are to go through `model` itself: each would be compiled anew.

    Returns:
        The compiled module and the seconds it took; None, with a warning, if it fails.
    """
    started_s = time.perf_counter()
    module = torch.compile(model, dynamic=False)
    assert isinstance(module, nn.Module)
    parameters = list(model.parameters())
    try:
        loss = module(images_KBCYX).float().sum()
        torch.autograd.grad(loss, parameters)  # the backward is compiled at its first use
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler may throw; training goes on without it
        logger.warning("training without torch.compile, which is slower: %s", in_a_line(error))
        torch._dynamo.reset()
        return None
    return module, time.perf_counter() - started_s


class Compilable(Protocol):
    """What trains: a stack."""

    def compile(self) -> float | None:
        """Compile; returns the seconds it took, None if it could not be done."""

    def uncompile(self) -> None:
        """Go back to the plain way."""


class Compiling:
    """Compiles a stack when what it saves in the epochs left is more than what it costs.

    Args:
        stack: to compile.
        when: True at once, False never; `auto` as soon as it pays, on a GPU. On a CPU that would
            win a few per cent and lose that a run that is resumed repeats its numbers bit for bit.
        on_gpu: whether the stack trains on one.
        key: of the architecture; what one stack measured serves the next ones of this process.
    """

    # By key: the seconds that compiling took, and the share of an epoch that it saved.
    _known: ClassVar[dict[str, tuple[float, float]]] = {}

    def __init__(self, stack: Compilable, when: When, *, on_gpu: bool, key: str) -> None:
        self._stack, self._key = stack, key
        self._judging = when == "auto" and on_gpu
        self._epochs_s: list[float] = []  # the plain way, then compiled
        self._compile_s = 0.0
        if when is True:
            stack.compile()

    def epoch_took(self, train_s: float, epochs_left: int) -> None:
        """Decide after each epoch: compile, go back, or leave it."""
        if not self._judging:
            return
        self._epochs_s.append(train_s)
        plain_s = min(self._epochs_s[:_EPOCHS_EACH])
        if len(self._epochs_s) == _EPOCHS_EACH:
            compile_s, gain = self._known.get(self._key, (_EXPECTED_S, _EXPECTED_GAIN))
            pays = plain_s * epochs_left * gain > compile_s
            taken_s = self._stack.compile() if pays else None
            self._judging = taken_s is not None
            self._compile_s = taken_s or 0.0
        elif len(self._epochs_s) == 2 * _EPOCHS_EACH:
            self._judging = False
            gain = 1.0 - min(self._epochs_s[_EPOCHS_EACH:]) / plain_s
            self._known[self._key] = (self._compile_s, gain)
            if gain < _MIN_GAIN:
                self._stack.uncompile()
            logger.info("compiled in %.0f s, epochs %.0f %% shorter", self._compile_s, 100 * gain)
