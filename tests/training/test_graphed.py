"""The CUDA path where there is no GPU: steps recorded and replayed, and tensors of a device that
only knows shapes. What these cannot tell is what kernels compute, how fast, and what fits.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vitbench.config import Model
from vitbench.plan import StackPlan
from vitbench.training import optim
from vitbench.training import stack as training
from vitbench.training.speedup.graphed import GraphedSteps
from vitbench.training.stack import Stack

CPU = torch.device("cpu")
IMAGES = tiny.image_set()  # 22 images in batches of 5: the last batch of an epoch has 2
MEMBERS: tuple[dict[str, Any], ...] = (
    {"lr": 3e-3, "seed": 0, "weight_decay": 0.1},
    {"lr": 1e-2, "seed": 1},
)


class RecordedGraph(TorchDispatchMode):
    """A CUDA graph on the CPU: the operations of a capture, run again on the tensors of then.

    As on a GPU, a capture computes nothing that stays, and a replay takes no number from Python.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self.replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        arguments = func._schema.arguments
        for argument, value in zip(arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _tensors(value):
                    storage = tensor.untyped_storage().data_ptr()
                    self._before.setdefault(storage, _whole(tensor))
        out = func(*args, **kwargs)
        aliases = any(r.alias_info is not None for r in func._schema.returns)
        writes = any(a.alias_info is not None and a.alias_info.is_write for a in arguments)
        if writes or not aliases:  # a view needs no second look
            made = () if aliases else _tensors(out)
            self._calls.append((func, args, kwargs, made))
        return out

    def capture_ends(self) -> None:
        """Nothing has been computed, as far as anybody sees."""
        for tensor, before in self._before.values():
            tensor.copy_(before)

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, made in self._calls:
                again = func(*args, **kwargs)
                for old, new in zip(made, _tensors(again) if made else (), strict=True):
                    old.copy_(new)


def _tensors(value: Any) -> tuple[Tensor, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(one for one in values if isinstance(one, Tensor))


def _whole(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """All that a tensor's storage holds: as it is seen, and a copy."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    seen = tensor.detach().as_strided((size,), (1,), 0)
    return seen, seen.clone()


class Stream:
    """Nothing runs beside anything on a CPU."""

    def __init__(self, device: torch.device) -> None:
        pass

    def wait_stream(self, other: object) -> None:
        pass


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    """The graphs that were made."""
    made: list[RecordedGraph] = []

    def graph() -> RecordedGraph:
        made.append(RecordedGraph())
        return made[-1]

    @contextlib.contextmanager
    def capture(graph: RecordedGraph, stream: Stream) -> Iterator[None]:
        with graph:
            yield
        graph.capture_ends()

    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream(CPU))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    return made


def on_device(plan: StackPlan, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Stack:
    """A stack on the CPU with a GPU's optimiser and steps."""
    with monkeypatch.context() as patch:
        patch.setattr("vitbench.training.stack.CpuOptimizer", optim.DeviceOptimizer)
        patch.setattr("vitbench.training.stack.EagerSteps", lambda: GraphedSteps(CPU))
        return Stack(plan, IMAGES, CPU, **settings)


def with_model(plan: StackPlan, model: Model) -> StackPlan:
    return StackPlan(tuple(m.model_copy(update={"model": model}) for m in plan.members))


def curve(stack: Stack, epochs: int = 4) -> list[list[float]]:
    return [stack.train_epoch(epoch)[0].tolist() for epoch in range(1, epochs + 1)]


@pytest.mark.parametrize("optimizer", ["radam", "adamw", "sgd"])
def test_replayed_steps_train_as_a_cpus_steps_do(
    optimizer: str, graphs: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learning rate, step and batch of a replay are its own, not those of the capture."""
    plan = tiny.plan(*MEMBERS, optimizer=optimizer, schedule="cosine", clip_norm=0.5, epochs=4)
    plain = Stack(plan, IMAGES, CPU, dtype=torch.float64)
    graphed = on_device(plan, monkeypatch, dtype=torch.float64)
    for one, two in zip(curve(plain), curve(graphed), strict=True):
        assert two == pytest.approx(one, abs=1e-10)
    torch.testing.assert_close(graphed.model.flat, plain.model.flat, rtol=0, atol=1e-9)
    (graph,) = graphs
    # Of 16 whole batches three are run as they come, and RAdam's first five go another way.
    assert graph.replays == 16 - 3 - (4 if optimizer == "radam" else 0)


@pytest.mark.parametrize(
    ("model", "precision"),
    [("paper", "bfloat16"), ("resnet", "float32"), ("transformer", "float32")],
)
def test_other_models_and_precisions_are_captured_too(
    model: str, precision: str, graphs: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded weights, anybody's module under vmap, and running statistics that a step updates."""
    plan = tiny.plan(*MEMBERS, precision=precision, epochs=4)
    if model != "paper":
        plan = with_model(plan, Model(build=f"sample_models:{model}"))
    plain, graphed = Stack(plan, IMAGES, CPU), on_device(plan, monkeypatch)
    for one, two in zip(curve(plain), curve(graphed), strict=True):
        assert two == pytest.approx(one, rel=1e-2 if precision == "bfloat16" else 1e-4)
    assert [graph.replays > 4 for graph in graphs] == [True]


def test_a_member_that_diverges_in_a_replay_is_found(
    graphs: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of a diverged member lies on the device, and its neighbour trains on."""
    sick = ({"lr": 1e30, "seed": 0}, {"lr": 1e-2, "seed": 1})
    stack = on_device(tiny.plan(*sick, epochs=4, optimizer="sgd"), monkeypatch)
    losses = curve(stack)
    assert stack.alive_K.tolist() == [False, True]
    assert losses[-1][1] < losses[0][1]
    assert len(graphs) == 1


@pytest.mark.parametrize("error", [RuntimeError("operation not permitted"), torch.OutOfMemoryError])
def test_a_capture_that_fails(
    error: BaseException,
    graphs: list[RecordedGraph],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Steps stay eager, with one warning and the same losses; out of memory is not for us."""

    @contextlib.contextmanager
    def refuse(graph: object, stream: object) -> Iterator[None]:
        raise error
        yield

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    plan = tiny.plan(*MEMBERS, epochs=4, optimizer="sgd")
    stack = on_device(plan, monkeypatch)
    if not isinstance(error, RuntimeError):
        with pytest.raises(torch.OutOfMemoryError):
            curve(stack)
        return
    with caplog.at_level(logging.WARNING):
        found = curve(stack)
    assert caplog.text.count("without a CUDA graph") == 1
    for one, two in zip(curve(Stack(plan, IMAGES, CPU)), found, strict=True):
        assert two == pytest.approx(one, rel=1e-5)


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices; copies between them are for that."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flat = [one for value in args for one in _tensors(value)]
        copies = str(func).startswith(("aten._to_copy", "aten.copy_"))
        places = {tensor.device.type for tensor in flat}
        assert copies or len(places) <= 1, f"{func} on {places}"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("paper", {"optimizer": "radam", "clip_norm": 0.5}),
        ("paper", {"optimizer": "adamw", "precision": "bfloat16"}),
        ("paper", {"augment": {"shift": 2, "flip": True, "cutout": 3, "mixup": 0.2}}),
        ("resnet", {"optimizer": "sgd", "label_smoothing": 0.1}),
    ],
)
def test_all_that_trains_lies_on_the_device(
    model: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that knows shapes alone stands for the GPU: nothing is mixed, nothing read back."""
    device = torch.device("meta")
    for name in ("_EVAL_BATCH", "_EVAL_BYTES"):
        monkeypatch.setitem(getattr(training, name), "meta", 1 << 20)
    monkeypatch.setattr(training, "CpuOptimizer", optim.DeviceOptimizer)
    monkeypatch.setattr(training, "_means", lambda sums, batches: sums.unbind(0))
    plan = tiny.plan(*MEMBERS, **settings)
    if model != "paper":
        plan = with_model(plan, Model(build=f"sample_models:{model}"))
    stack = Stack(plan, IMAGES, device)
    with OneDevice():
        for epoch in (1, 2):
            results = [*stack.train_epoch(epoch), *stack.evaluate("val"), stack.alive_K]
    assert {tensor.device for tensor in results} == {device}
