"""Stacks whose seeds draw their own training images, and stacks that count in updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from vitbench.data import subsets
from vitbench.storage.checkpoints import Checkpoints
from vitbench.storage.place import Place
from vitbench.training.engine import EpochReport, FitResult, fit
from vitbench.training.stack import Stack

CPU = torch.device("cpu")
DRAWN: dict[str, Any] = {"train_images": 12, "subset": "per_seed"}
MEMBERS: tuple[dict[str, Any], ...] = (
    {"lr": 3e-3, "seed": 0},
    {"lr": 3e-3, "seed": 1},
    {"lr": 1e-2, "seed": 0},
)


def train(stop_after: int | None = None, **settings: Any) -> FitResult:
    """Train the three members for 7 updates of 3 an epoch."""
    plan = tiny.plan(*MEMBERS, epochs=3, steps=7, **DRAWN)
    images = subsets.cut(tiny.image_set(), plan.shared.train)

    def report(epoch: EpochReport) -> bool:
        return epoch.epoch != stop_after

    return fit(plan, images, device=CPU, report=report, **settings)


def test_all_arms_of_a_seed_train_on_the_images_that_it_drew() -> None:
    """Two learning rates share a stream of batches; another seed has other images."""
    plan = tiny.plan(*MEMBERS, **DRAWN)
    images = subsets.cut(tiny.image_set(), plan.shared.train)
    stack = Stack(plan, images, CPU, fixed_train_images=5)
    order_SN = stack._data.order(1)
    assert stack._data._streams.of_member == (0, 1, 0) and order_SN.shape == (2, 12)
    assert set(order_SN[0].tolist()) == set(images.drawn(0)[:12])
    assert set(order_SN[1].tolist()) == set(images.drawn(1)[:12])
    assert set(order_SN[0].tolist()) != set(order_SN[1].tolist())
    assert stack.images_per_epoch == 12
    # Validation images are the same for all, so they are looked at once.
    assert len(stack._data.judged_on["val"]) == 1


def test_a_stack_of_drawn_subsets_equals_its_members_alone() -> None:
    """Nobody's images depend on who shares the stack."""
    together = train(dtype=torch.float64)
    for k, member in enumerate(MEMBERS):
        plan = tiny.plan(member, epochs=3, steps=7, **DRAWN)
        alone = fit(
            plan,
            subsets.cut(tiny.image_set(), plan.shared.train),
            device=CPU,
            report=lambda epoch: True,
            dtype=torch.float64,
        )
        assert alone.trials[0].test_loss == pytest.approx(together.trials[k].test_loss, abs=1e-9)


def test_updates_are_counted_and_the_last_epoch_is_cut_short() -> None:
    """7 updates of 3 an epoch: the third epoch has one."""
    plan = tiny.plan(*MEMBERS, epochs=3, steps=7, **DRAWN)
    stack = Stack(plan, subsets.cut(tiny.image_set(), plan.shared.train), CPU)
    assert [stack.steps_in(epoch) for epoch in (1, 2, 3)] == [3, 3, 1]
    for epoch in (1, 2, 3):
        stack.train_epoch(epoch)
    assert stack.optimizer.steps == 7
    by_epochs = Stack(tiny.plan(*MEMBERS, **DRAWN), tiny.image_set(), CPU)
    assert [by_epochs.steps_in(epoch) for epoch in (1, 2, 3)] == [3, 3, 3]


def test_a_resumed_run_is_the_undisturbed_one(tmp_path: Path) -> None:
    """Interrupted after an epoch: the same subset, the same order, the same last update."""
    whole = train(dtype=torch.float64)
    store = Checkpoints(Place(str(tmp_path)))
    train(stop_after=1, store=store, dtype=torch.float64)
    resumed = train(store=store, dtype=torch.float64)
    for before, after in zip(whole.trials, resumed.trials, strict=True):
        assert (after.test_loss, after.train_loss) == (before.test_loss, before.train_loss)
