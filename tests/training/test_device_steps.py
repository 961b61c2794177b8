"""The steps of a GPU: on the CPU against the CPU's own, and on a GPU where there is one."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vitbench.plan import StackPlan
from vitbench.training import optim
from vitbench.training.engine import EpochReport, fit
from vitbench.training.optim import Step
from vitbench.training.speedup.graphed import EagerSteps, TrainStep
from vitbench.training.stack import Stack

CPU = torch.device("cpu")
IMAGES = tiny.image_set()  # 22 images in batches of 5: the last batch of an epoch has 2
MEMBERS: tuple[dict[str, Any], ...] = (
    {"lr": 3e-3, "seed": 0, "weight_decay": 0.1},
    {"lr": 1e-2, "seed": 1},
)
OnDevice = Callable[..., "tuple[Stack, NotedSteps]"]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


class NotedSteps(EagerSteps):
    """Runs each step at once, as a GPU's first ones, and notes which could be captured."""

    def __init__(self) -> None:
        self.repeats: list[bool] = []

    def run(self, train: TrainStep, index_SB: Tensor, step: Step, *, repeats: bool) -> None:
        self.repeats.append(repeats)
        super().run(train, index_SB, step, repeats=repeats)


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> OnDevice:
    """Makes a stack on the CPU whose steps are a GPU's."""

    def build(plan: StackPlan, **settings: Any) -> tuple[Stack, NotedSteps]:
        with monkeypatch.context() as patch:
            patch.setattr("vitbench.training.stack.CpuOptimizer", optim.DeviceOptimizer)
            built = Stack(plan, IMAGES, CPU, **settings)
        steps = NotedSteps()
        monkeypatch.setattr(built, "_steps", steps)
        return built, steps

    return build


@pytest.mark.parametrize("optimizer", ["radam", "adamw", "sgd"])
def test_a_gpus_steps_compute_what_a_cpus_steps_do(optimizer: str, on_device: OnDevice) -> None:
    """Schedule, decay and clipping included; by torch's operations, as where Triton is not."""
    plan = tiny.plan(*MEMBERS, optimizer=optimizer, schedule="cosine", clip_norm=0.5)
    host = Stack(plan, IMAGES, CPU, dtype=torch.float64)
    device, steps = on_device(plan, dtype=torch.float64)
    for epoch in (1, 2, 3):
        expected, found = host.train_epoch(epoch), device.train_epoch(epoch)
        for one, two in zip(expected, found, strict=True):
            torch.testing.assert_close(two, one, rtol=0, atol=1e-10)
    torch.testing.assert_close(device.model.flat, host.model.flat, rtol=0, atol=1e-9)
    # RAdam's first five updates go another way, and the last batch is smaller.
    first = 5 if optimizer == "radam" else 0
    assert steps.repeats == [step >= first and step % 5 != 4 for step in range(15)]


def test_steps_that_draw_dropout_are_not_captured(on_device: OnDevice) -> None:
    """A graph would replay the masks of the step that was captured."""
    stack, steps = on_device(tiny.plan(*MEMBERS, dropout=0.2, optimizer="sgd"))
    stack.train_epoch(1)
    assert steps.repeats == [False] * 5


def test_a_finished_stack_frees_its_memory_at_once() -> None:
    """The next stack of the process needs it; no circle of references waits for the collector."""
    stack = Stack(tiny.plan(*MEMBERS), IMAGES, CPU)
    stack.train_epoch(1)
    stack.evaluate("val")
    weights = weakref.ref(stack.model.flat)
    gc.collect()
    gc.disable()
    try:
        del stack
        assert weights() is None
    finally:
        gc.enable()


class Operations(TorchDispatchMode):
    """Notes every operation of torch by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(str(func).removeprefix("aten.").split(".")[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["radam", "adamw", "sgd"])
def test_a_step_reads_nothing_back_and_brings_nothing_along(
    optimizer: str, precision: str, on_device: OnDevice
) -> None:
    """No value goes to the host, no constant comes from it: a graph could hold neither."""
    plan = tiny.plan(*MEMBERS, optimizer=optimizer, precision=precision, clip_norm=0.5)
    stack, _ = on_device(plan)
    order_SN = stack._data.order(1)
    steps = stack.optimizer.advance(6)  # RAdam's sixth is the first of its usual ones
    with Operations() as seen:
        for step in (steps[0], steps[-1]):
            stack._train_step(order_SN[:, :5], step)
    assert "mm" in seen.names or "bmm" in seen.names
    reads = {"_local_scalar_dense", "item", "nonzero", "masked_select", "is_nonzero", "unique"}
    constants = {"lift_fresh", "scalar_tensor", "pin_memory"}
    assert not (reads | constants) & set(seen.names)


def losses(device: str, **settings: Any) -> list[Any]:
    found: list[Any] = []

    def report(epoch: EpochReport) -> bool:
        for row in epoch.rows:
            found.extend((row.train_loss, row.val_loss, row.test_loss))
        return True

    compile = settings.pop("compile", False)
    plan = tiny.plan(*MEMBERS, **{"epochs": 4, "precision": "float32", **settings})
    fit(plan, IMAGES, device=torch.device(device), report=report, compile=compile)
    return found


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("with_triton", [True, False])
@pytest.mark.parametrize("optimizer", ["radam", "adamw", "sgd"])
def test_a_captured_run_equals_the_cpus(
    optimizer: str,
    with_triton: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The same losses in float32, and nothing fell back to eager steps."""
    assert optim.adam_agrees(torch.device("cuda"))
    monkeypatch.setattr(optim, "adam_agrees", lambda device: with_triton)
    with caplog.at_level(logging.WARNING):
        found = losses("cuda", optimizer=optimizer)
    assert "without a CUDA graph" not in caplog.text
    assert found == pytest.approx(losses("cpu", optimizer=optimizer), rel=1e-3)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({"precision": "bfloat16"}, 0.05), ({"compile": True}, 1e-3), ({"clip_norm": 0.1}, 1e-3)],
)
def test_variants_on_a_gpu_agree_with_the_plain_one(
    settings: dict[str, Any], tolerance: float
) -> None:
    """Half precision, torch.compile and clipping inside the graph."""
    same = {name: value for name, value in settings.items() if name == "clip_norm"}
    assert losses("cuda", **settings) == pytest.approx(losses("cpu", **same), rel=tolerance)


@pytest.mark.gpu
@needs_gpu
def test_a_member_that_diverges_in_a_graph_leaves_the_others_alone() -> None:
    """Its neighbour trains as if it were alone, and nothing is read back to know."""
    sick = ({"lr": 1e30, "seed": 0}, {"lr": 1e-2, "seed": 1})
    images, device = IMAGES, torch.device("cuda")
    both = Stack(tiny.plan(*sick, epochs=9, precision="float32"), images, device)
    alone = Stack(tiny.plan(sick[1], epochs=9, precision="float32"), images, device)
    for epoch in range(1, 10):
        of_both, of_alone = both.train_epoch(epoch)[0], alone.train_epoch(epoch)[0]
        torch.testing.assert_close(of_both[1], of_alone[0], rtol=1e-3, atol=1e-5)
    assert both.alive_K.tolist() == [False, True]
