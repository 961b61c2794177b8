"""How many members a stack should have: the choice and the measurement. Needs no Ray."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import tiny
import torch

from vitbench.config import Model
from vitbench.plan import StackPlan
from vitbench.records.types import StackReport
from vitbench.training import stack_size
from vitbench.training.engine import fit
from vitbench.training.stack import Stack


@pytest.mark.parametrize(
    ("speeds", "size"),
    [
        ({1: 100.0}, 1),
        ({1: 100.0, 2: 180.0, 4: 300.0, 8: 310.0}, 4),  # 8 gains 3 %
        ({1: 100.0, 2: 90.0}, 1),
        ({1: 100.0, 2: 104.0, 4: 111.0}, 4),
        ({}, 1),
    ],
)
def test_the_largest_size_that_still_gains(speeds: dict[int, float], size: int) -> None:
    """Five per cent over every smaller size."""
    assert stack_size.choose(speeds) == size


def test_sizes_grow_until_one_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory ends the measurement with what was found before."""
    tried: list[int] = []

    def speed(plan: StackPlan, images: object, device: object, precision: str) -> float:
        tried.append(plan.size)
        if plan.size > 4:
            raise torch.OutOfMemoryError("no")
        return 1000.0 * plan.size

    monkeypatch.setattr(stack_size, "training_speed", speed)
    (trial,) = tiny.plan().members
    cpu = torch.device("cpu")
    found = stack_size.throughput(trial, tiny.image_set(), cpu, at_most=64)
    assert found == {1: 1000.0, 2: 2000.0, 4: 4000.0}
    assert tried == [1, 2, 4, 8]
    tried.clear()
    stack_size.throughput(trial, tiny.image_set(), cpu, at_most=3)
    assert tried == [1, 2]


def test_a_cpu_tries_no_stacks_of_large_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of over 30 ms of one model ends the measurement: larger stacks gain nothing then."""
    (trial,) = tiny.plan().members
    for step_s, tried in ((0.1, {1}), (0.01, {1, 2, 4})):
        rate = trial.train.batch_size / step_s
        monkeypatch.setattr(
            stack_size, "training_speed", lambda plan, *_, rate=rate: rate * plan.size
        )
        found = stack_size.throughput(trial, tiny.image_set(), torch.device("cpu"), at_most=4)
        assert set(found) == tried


def test_real_steps_are_measured() -> None:
    """Positive speeds of real training, and the trial itself stays as it is."""
    (trial,) = tiny.plan().members
    found = stack_size.throughput(trial, tiny.image_set(), torch.device("cpu"), at_most=2)
    assert set(found) <= {1, 2} and all(speed > 0 for speed in found.values())


def test_a_failed_attempt_holds_no_memory_when_it_is_to_be_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor after it: what is given back is what the next, smaller attempt needs."""
    made: list[weakref.ref[Stack]] = []
    start = Stack.__init__

    def noted(self: Stack, *args: Any, **settings: Any) -> None:
        start(self, *args, **settings)
        made.append(weakref.ref(self))

    def full(self: Stack, epoch: int) -> None:
        if self.plan.size > 1:
            raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(Stack, "__init__", noted)
    monkeypatch.setattr(Stack, "train_epoch", full)
    alive: list[bool] = []

    def run(part: StackPlan) -> bool:
        Stack(part, tiny.image_set(), torch.device("cpu")).train_epoch(1)
        return True

    def release() -> None:
        alive.extend(stack() is not None for stack in made)

    plan = tiny.plan({"seed": 0}, {"seed": 1}, {"seed": 2})
    gc.disable()
    try:
        stack_size.fit_or_halve(plan, run, release, lambda report: None)
    finally:
        gc.enable()
    assert alive == [False] * 3  # of three members, then of two


@pytest.fixture
def one_gib() -> Iterator[None]:
    """A GPU of which this process may have no more."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**30 / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_full_gpu_ends_the_growth_and_halves_a_stack(one_gib: None) -> None:
    """Sixteen of the paper's models (22 MB each, six times with what training keeps) do not fit in
    a GiB: the sizes end before, and a stack of them is trained in parts, each member once.
    """
    device, images = torch.device("cuda"), tiny.image_set()
    model = Model(patch_grid=2, depth=12, heads=4, width=192)
    members = [
        m.model_copy(update={"model": model})
        for m in tiny.plan(*({"seed": n} for n in range(16))).members
    ]
    speeds = stack_size.throughput(members[0], images, device, at_most=64)
    assert 1 in speeds and max(speeds) < 16
    trained: list[str] = []
    sizes: list[int] = []

    def run(part: StackPlan) -> bool:
        sizes.append(part.size)
        done = fit(part, images, device=device, report=lambda epoch: True)
        trained.extend(trial.trial_id for trial in done.trials)
        return True

    def no_end(report: StackReport) -> None:
        raise AssertionError(report)

    whole = StackPlan(tuple(members))
    stack_size.fit_or_halve(whole, run, torch.cuda.empty_cache, no_end)
    assert sizes[:2] == [16, 8]
    assert trained == [member.trial_id for member in members]
