"""How the steps of an epoch run: one after another, or on a GPU as one CUDA graph.

A graph is one launch instead of hundreds. Everything then runs on a stream of its own, the eager
steps too: a backward pass that was first seen on the default stream cannot be captured on another
one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vitbench.training.optim import Step

logger = logging.getLogger(__name__)

TrainStep = Callable[[Tensor, Step], None]

_WARM_UP_STEPS = 3  # eager steps before the capture, as torch asks for


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream of all stacks that this process trains on a GPU.

    cuBLAS keeps workspaces for every stream that it has seen to the end.
    """
    return torch.cuda.Stream(device)


class EagerSteps:
    """Runs every step as it comes: the CPU's way."""

    def forget(self) -> None:
        """Nothing is kept of a step."""

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """The steps of an epoch run in here."""
        yield

    def run(self, train: TrainStep, index_SB: Tensor, step: Step, *, repeats: bool) -> None:
        """One step; see `GraphedSteps.run`."""
        train(index_SB, step)


class GraphedSteps(EagerSteps):
    """Runs a step eagerly at first, then captures it and replays it.

    The step is not kept: it belongs to who owns this, and a circle of references would hold a
    finished stack's memory until the garbage collector comes by.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = _side_stream(device)
        self._may_capture = True
        self.forget()

    def forget(self) -> None:
        """Capture anew: the step has changed."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._eager_steps = 0

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """The steps of an epoch run in here."""
        outside = torch.cuda.current_stream()
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            yield
        outside.wait_stream(self._stream)

    def run(self, train: TrainStep, index_SB: Tensor, step: Step, *, repeats: bool) -> None:
        """One step of `train`, which is the same one until `forget` and reads nothing back.

        `repeats` tells that it is the one to capture: full batches, the update's usual way.
        """
        if repeats and self._may_capture and self._eager_steps >= _WARM_UP_STEPS:
            if self._graph is None:
                self._capture(train, index_SB, step)
            if self._graph is not None:
                for captured, value in zip(self._inputs, (index_SB, step.factors), strict=True):
                    captured.copy_(value)
                self._graph.replay()
                return
        self._eager_steps += repeats
        train(index_SB, step)

    def _capture(self, train: TrainStep, index_SB: Tensor, step: Step) -> None:
        """Record the step; where that fails nothing has run, and steps stay eager."""
        index_SB, factors = self._inputs = (index_SB.clone(), step.factors.clone())
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                train(index_SB, dataclasses.replace(step, factors=factors))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logger.warning("training without a CUDA graph, which is slower: %s", error)
            self._may_capture = False
            return
        self._graph = graph
