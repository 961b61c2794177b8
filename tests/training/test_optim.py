"""The stacked optimisers against torch.optim, one member at a time."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from vitbench.rng import generator
from vitbench.training.optim import CpuOptimizer, DeviceOptimizer, StackedOptimizer, clip_rows_
from vitbench.training.optim import schedule_factor as factor

LR, DECAY = [3e-2, 1e-3, 2e-1], [0.0, 0.1, 0.01]
WIDE, DECAYED, STEPS = 7, 4, 15  # RAdam's rectified branch begins at step 6
RULES = ["radam", "adamw", "sgd"]


def normal(*names: object, shape: tuple[int, ...] = (3, WIDE)) -> Tensor:
    return torch.randn(shape, generator=generator(0, *names), dtype=torch.float64)


def stacked(
    flat: Tensor, rule: str, decay: list[float] = DECAY, kind: type[StackedOptimizer] = CpuOptimizer
) -> StackedOptimizer:
    return kind(
        flat,
        rule=rule,
        lr_K=LR,
        weight_decay_K=decay,
        decayed=DECAYED,
        schedule=lambda step: 1.0 / (1 + step),
    )


def updated(optimizer: StackedOptimizer, grad: Tensor, alive: Tensor) -> None:
    (step,) = optimizer.advance(1)
    optimizer.update(grad.clone(), alive, step)


@pytest.fixture(params=[CpuOptimizer, DeviceOptimizer])
def kind(request: pytest.FixtureRequest) -> type[StackedOptimizer]:
    """Each way to compute an update; a GPU's by torch's operations, too (see kernels)."""
    found: type[StackedOptimizer] = request.param
    return found


def of_torch(rule: str, weights: Tensor, k: int) -> tuple[list[Tensor], torch.optim.Optimizer]:
    parts = [weights[k, :DECAYED].clone(), weights[k, DECAYED:].clone()]
    groups = [
        {"params": [parts[0]], "weight_decay": DECAY[k]},
        {"params": [parts[1]], "weight_decay": 0.0},
    ]
    kinds = {"radam": torch.optim.RAdam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    extra = {"momentum": 0.9} if rule == "sgd" else {}
    return parts, kinds[rule](groups, lr=LR[k], **extra)


@pytest.mark.parametrize("rule", RULES)
def test_each_member_follows_torch_optim(rule: str, kind: type[StackedOptimizer]) -> None:
    """Own learning rates, decays and a schedule; both sides of RAdam's rectification."""
    start = normal("weights")
    flat = start.clone()
    optimizer = stacked(flat, rule, kind=kind)
    references = [of_torch(rule, start, k) for k in range(3)]
    alive = torch.ones(3, dtype=torch.bool)
    for step in range(STEPS):
        grad = normal("grad", step)
        updated(optimizer, grad, alive)
        for k, (parts, reference) in enumerate(references):
            parts[0].grad, parts[1].grad = grad[k, :DECAYED], grad[k, DECAYED:]
            for group in reference.param_groups:
                group["lr"] = LR[k] / (1 + step)
            reference.step()
            torch.testing.assert_close(flat[k], torch.cat(parts), rtol=0, atol=1e-12)
    assert (flat - start).abs().min() > 1e-6


@pytest.mark.parametrize("rule", RULES)
def test_a_dead_member_stays_as_it_was_bit_for_bit(rule: str, kind: type[StackedOptimizer]) -> None:
    """NaN gradients of a dead member change neither its weights and moments nor its neighbours'."""
    clean, sick = normal("weights"), normal("weights")
    one, two = (stacked(weights, rule, kind=kind) for weights in (clean, sick))
    for step in range(7):
        for optimizer in (one, two):
            updated(optimizer, normal("before", step), torch.ones(3, dtype=torch.bool))
    held = {"weights": sick, **two.state}
    before = {name: tensor[1].clone() for name, tensor in held.items()}
    for step in range(8):
        grad = normal("grad", step)
        updated(one, grad, torch.ones(3, dtype=torch.bool))
        grad[1] = math.nan
        updated(two, grad, torch.tensor([True, False, True]))
    assert all(torch.equal(held[name][1], before[name]) for name in held)
    assert torch.equal(sick[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("kind", [CpuOptimizer, DeviceOptimizer])
def test_factors_of_an_epoch_are_those_of_its_steps(kind: type[StackedOptimizer]) -> None:
    """One copy to the device for many steps, also in the middle of a run."""
    ahead, one_by_one = (stacked(normal("weights"), "radam", kind=kind) for _ in range(2))
    for optimizer in (ahead, one_by_one):
        optimizer.steps = 3
    steps = ahead.advance(5)
    assert ahead.steps == 8
    for step in steps:
        (same,) = one_by_one.advance(1)
        assert torch.equal(step.factors, same.factors)
        assert (step.adaptive, step.repeats) == (same.adaptive, same.repeats)
    # numbers 4 to 8: RAdam's first five do not divide by the second moment
    assert [step.adaptive for step in steps] == [False, False, True, True, True]


def test_pieces_of_a_row_do_not_change_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is updated in pieces for the cache's sake; the border of the decay is inside one."""
    results = []
    for size in (1 << 16, 3):
        monkeypatch.setattr("vitbench.training.optim._CHUNK", size)
        flat = normal("weights")
        optimizer = stacked(flat, "radam")
        for step in range(STEPS):
            updated(optimizer, normal("grad", step), torch.ones(3, dtype=torch.bool))
        results.append(flat)
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-15)


def test_clipping_is_torchs_own_per_member() -> None:
    """A large, a small and a NaN gradient: each is scaled by its own norm."""
    grad = normal("grad") * torch.tensor([[100.0], [0.01], [1.0]], dtype=torch.float64)
    grad[2, 0] = math.nan
    expected = []
    for row in grad[:2]:
        weights = torch.zeros(WIDE, dtype=torch.float64, requires_grad=True)
        weights.grad = row.clone()
        torch.nn.utils.clip_grad_norm_([weights], 0.5)
        expected.append(weights.grad)
    norms = clip_rows_(grad, 0.5)
    torch.testing.assert_close(grad[:2], torch.stack(expected), rtol=1e-12, atol=0)
    assert norms[:2].isfinite().all() and norms[2].isnan()


def test_an_unknown_rule_and_a_wrong_count_are_refused() -> None:
    """Neither is guessed."""
    with pytest.raises(ValueError, match="lion"):
        stacked(normal("weights"), "lion")
    with pytest.raises(ValueError, match="3 members"):
        stacked(normal("weights"), "radam", decay=[0.0])


def test_schedules_have_their_landmarks() -> None:
    """Warm-up is linear and never 0; cosine is half way down in the middle; constant stays."""
    cosine = [factor("cosine", s, total_steps=12, warmup_steps=2) for s in range(12)]
    assert cosine[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert cosine[7] == pytest.approx(0.5)
    assert all(a > b > 0 for a, b in itertools.pairwise(cosine[2:]))
    assert {factor("constant", s, total_steps=9, warmup_steps=0) for s in range(9)} == {1.0}
