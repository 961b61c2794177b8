"""Training steps on a GPU as one CUDA graph: one launch instead of hundreds.

Everything runs on a stream of its own, the eager steps too: a backward pass that was first seen on
the default stream cannot be captured on another one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_WARM_UP_STEPS = 3  # eager steps before the capture, as torch asks for


class GraphedSteps:
    """Runs a step eagerly at first, then captures it and replays it.

    The step is not kept: it belongs to who owns this, and a circle of references would hold a
    finished stack's memory until the garbage collector comes by.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._may_capture = True
        self.forget()

    def forget(self) -> None:
        """Capture anew: the step has changed."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._index_SB: Tensor | None = None
        self._eager_steps = 0

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """The steps of an epoch run in here."""
        outside = torch.cuda.current_stream()
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            yield
        outside.wait_stream(self._stream)

    def run(self, step: Callable[[Tensor], None], index_SB: Tensor, *, repeats: bool) -> None:
        """One step.

        Args:
            step: works on the device alone and reads nothing back; the same one until `forget`.
            index_SB: the batch of every stream.
            repeats: whether this step is the one to capture: full batches, the update's usual way.
        """
        if repeats and self._may_capture and self._eager_steps >= _WARM_UP_STEPS:
            if self._graph is None:
                self._capture(step, index_SB)
            if self._graph is not None and self._index_SB is not None:
                self._index_SB.copy_(index_SB)
                self._graph.replay()
                return
        self._eager_steps += repeats
        step(index_SB)

    def _capture(self, step: Callable[[Tensor], None], index_SB: Tensor) -> None:
        """Record the step; where that fails nothing has run, and steps stay eager."""
        self._index_SB = index_SB.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                step(self._index_SB)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logger.warning("training without a CUDA graph, which is slower: %s", error)
            self._may_capture = False
            return
        self._graph = graph
