"""Anybody's modules in stacks: the proof of the ViT's stack over ResNet, Transformer and timm.

Tolerances are those of float64: 1e-9 absolute on weights after 12 steps, as for the ViT. Runs
resumed or in another order are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from sample_models import SAMPLES
from torch import Tensor, nn

from vitbench.config import Dataset, Model, Train, TrialConfig
from vitbench.model.generic import GenericStack
from vitbench.plan import StackPlan
from vitbench.rng import generator
from vitbench.storage.checkpoints import Checkpoints
from vitbench.storage.place import Place
from vitbench.torchvision_import import with_torchvision
from vitbench.training.checkpoint import load_member
from vitbench.training.engine import EpochReport, fit
from vitbench.training.stack import Stack

CPU = torch.device("cpu")
IMAGES = tiny.image_set(train=20, val=9, test=7)
MEMBERS: tuple[dict[str, Any], ...] = (
    {"lr": 3e-3, "seed": 0, "weight_decay": 0.1},
    {"lr": 3e-4, "seed": 1},
    {"lr": 1e-2, "seed": 0, "weight_decay": 0.01},
)
STACKED = [name for name in SAMPLES if name != "dropout"]


def plan(build: str, *members: dict[str, Any], **shared: Any) -> StackPlan:
    """Batches of 5: 4 steps an epoch."""
    train = {"epochs": 3, "batch_size": 5, **shared}
    trials = (
        TrialConfig(
            dataset=Dataset(name="digits", image_size=8),
            model=Model(build=f"sample_models:{build}"),
            train=Train(**{**train, **member}),
        )
        for member in members or MEMBERS
    )
    return StackPlan(tuple(trials))


def plain_run(build: Callable[..., nn.Module], start: dict[str, Tensor], train: Train) -> nn.Module:
    """One module trained with nothing of the engine but the order of its images."""
    module = with_torchvision(lambda: build(channels=1, image_size=8, outputs=3)).double().train()
    module.load_state_dict(start, strict=False)
    spared = getattr(module, "no_weight_decay", set)()
    parts: tuple[list[Any], list[Any]] = ([], [])
    for name, parameter in module.named_parameters():
        parts[parameter.dim() > 1 and name not in spared].append(parameter)
    decayed = zip(parts, (0, train.weight_decay), strict=True)
    groups = [{"params": p, "weight_decay": d} for p, d in decayed]
    kinds = {"radam": torch.optim.RAdam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    extra = {"momentum": train.momentum} if train.optimizer == "sgd" else {}
    optimizer = kinds[train.optimizer](groups, lr=train.lr, **extra)
    pixels = (torch.from_numpy(IMAGES.train.images).double() / 255 - 0.3) / 0.25
    targets = torch.from_numpy(IMAGES.train.targets[:, 0])
    for epoch in range(1, train.epochs + 1):
        order = torch.randperm(len(targets), generator=generator(train.seed, "order", epoch))
        for index in order.split(train.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(pixels[index]), targets[index]).backward()
            optimizer.step()
    return module


@pytest.mark.parametrize("build", STACKED)
@pytest.mark.parametrize("optimizer", ["radam", "adamw", "sgd"])
@pytest.mark.parametrize("size", [1, 3])
def test_members_equal_plain_torch(build: str, optimizer: str, size: int) -> None:
    """12 steps with mixed rates, decays and seeds: weights and running statistics to 1e-9."""
    asked = plan(build, *MEMBERS[:size], optimizer=optimizer)
    stack = Stack(asked, IMAGES, CPU, dtype=torch.float64)
    assert isinstance(stack.model, GenericStack) and not stack.model.why_alone
    starts = [stack.model.member_state(k) for k in range(size)]
    for epoch in (1, 2, 3):
        stack.train_epoch(epoch)
    for k, member in enumerate(asked.members):
        expected = plain_run(SAMPLES[build], starts[k], member.train)
        state = {**dict(expected.named_parameters()), **dict(expected.named_buffers())}
        got = stack.model.member_state(k)
        assert got.keys() == state.keys()
        for name, tensor in state.items():
            torch.testing.assert_close(got[name], tensor, rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize("build", SAMPLES)
def test_a_diverged_neighbour_changes_nothing(build: str) -> None:
    """A member that blows up is recorded; the others' numbers are those beside a calm one."""
    calm, _ = tiny.train(IMAGES, plan(build, MEMBERS[0], {"lr": 1e-5, "seed": 3}, MEMBERS[1]))
    asked = plan(build, MEMBERS[0], {"lr": 1e30, "seed": 3}, MEMBERS[1], optimizer="radam")
    rows, result = tiny.train(IMAGES, asked)
    assert [trial.status for trial in result.trials] == ["finished", "diverged", "finished"]
    for k in (0, 2):
        assert rows[asked.members[k].trial_id] == calm[asked.members[k].trial_id]


@pytest.mark.parametrize("build", SAMPLES)
def test_resume_from_any_epoch_is_exact(build: str, tmp_path: Path) -> None:
    """Buffers, moments and draws go on where they were; the best weights load and score alone."""
    asked = plan(build)
    whole, expected = tiny.train(IMAGES, asked)
    for stop_after in (1, 2):
        store = Checkpoints(Place(str(tmp_path / str(stop_after))))
        before, stopped = tiny.train(IMAGES, asked, store=store, stop_after=stop_after)
        assert stopped.stopped
        after, result = tiny.train(IMAGES, asked, store=store)
        for member in asked.members:
            assert before[member.trial_id] + after[member.trial_id] == whole[member.trial_id]
    pixels = (torch.from_numpy(IMAGES.val.images).float() / 255 - 0.3) / 0.25
    targets = torch.from_numpy(IMAGES.val.targets[:, 0])
    for k, member in enumerate(asked.members):
        assert result.trials[k].best_val_loss == expected.trials[k].best_val_loss
        best = tmp_path / "2" / "checkpoints" / member.trial_id / "best.safetensors"
        model, info = load_member(best)
        assert info["shape"]["build"] == f"sample_models:{build}"
        with torch.no_grad():
            loss = nn.functional.cross_entropy(model(pixels.unsqueeze(0))[0], targets)
        assert loss.item() == pytest.approx(result.trials[k].best_val_loss, rel=1e-5)


@pytest.mark.parametrize("build", SAMPLES)
def test_place_and_size_of_the_stack_do_not_matter(build: str) -> None:
    """In another place bit for bit, alone to rounding; dropout's numbers are a member's own."""
    together, _ = tiny.train(IMAGES, plan(build), dtype=torch.float64)
    turned, _ = tiny.train(IMAGES, plan(build, *MEMBERS[::-1]), dtype=torch.float64)
    assert together == turned
    alone, _ = tiny.train(IMAGES, plan(build, MEMBERS[2]), dtype=torch.float64)
    ((trial_id, rows),) = alone.items()
    for mine, theirs in zip(rows, together[trial_id], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-9)


def test_a_seed_is_one_start_in_every_arm_whatever_was_drawn_before() -> None:
    """Weights are drawn from the trial's own stream, and the global one is left as it was."""
    torch.manual_seed(1)
    first = Stack(plan("resnet", *MEMBERS), IMAGES, CPU).model
    before = torch.get_rng_state()
    second = Stack(plan("resnet", *MEMBERS[1:]), IMAGES, CPU).model
    tiny.train(IMAGES, plan("dropout", epochs=1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.flat[0], first.flat[2])
    assert not torch.equal(first.flat[0], first.flat[1])
    assert torch.equal(first.flat[1:], second.flat)


def test_what_cannot_be_stacked_trains_one_by_one() -> None:
    """Random numbers and values read back are found; a model with either trains all the same."""
    for build, reason in (("dropout", "draws random numbers"), ("reads_back", ".item()")):
        stack = Stack(plan(build), IMAGES, CPU)
        assert isinstance(stack.model, GenericStack)
        assert reason in stack.model.why_alone
    rows, _ = tiny.train(IMAGES, plan("reads_back"), dtype=torch.float64)
    for member in plan("reads_back").members:
        losses = [row["train_loss"] for row in rows[member.trial_id]]
        assert losses[-1] < losses[0]


def test_dropout_differs_by_epoch_and_member_and_ends_with_training() -> None:
    """Two members of one seed drop alike; evaluation drops nothing."""
    rows, _ = tiny.train(IMAGES, plan("dropout", {"seed": 0}, {"seed": 0, "weight_decay": 1e-30}))
    first, second = rows.values()
    assert first == second
    stack = Stack(plan("dropout"), IMAGES, CPU)
    stack.train_epoch(1)
    assert torch.equal(stack.evaluate("val")[0], stack.evaluate("val")[0])


def test_half_precision_is_honoured() -> None:
    """bfloat16 gives other, close numbers, stacked and alone."""
    exact, _ = tiny.train(IMAGES, plan("resnet", precision="float32", epochs=1))
    rounded, _ = tiny.train(IMAGES, plan("resnet", precision="bfloat16", epochs=1))
    for one, two in zip(exact.values(), rounded.values(), strict=True):
        assert one[0]["train_loss"] != two[0]["train_loss"]
        assert one[0]["train_loss"] == pytest.approx(two[0]["train_loss"], rel=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("build", SAMPLES)
def test_a_gpu_gives_the_curves_of_a_cpu(build: str) -> None:
    """In float64 to 1e-6, steps captured as a graph where nothing is drawn; dropout has draws of
    its own on every kind of device, and is the same there when it is run again.
    """
    asked = plan(build, epochs=4)
    on_gpu = {"device": torch.device("cuda"), "dtype": torch.float64}
    rows: list[dict[str, list[float]]] = [{}, {}]
    for seen in rows:

        def report(epoch: EpochReport, seen: dict[str, list[float]] = seen) -> bool:
            for row in epoch.rows:
                seen.setdefault(row.trial_id, []).append(row.val_loss)
            return True

        fit(asked, IMAGES, report=report, **on_gpu)
    wanted = rows[1]
    if build != "dropout":
        on_cpu, _ = tiny.train(IMAGES, asked, dtype=torch.float64)
        wanted = {i: [row["val_loss"] for row in of_trial] for i, of_trial in on_cpu.items()}
    for trial_id, losses in rows[0].items():
        assert losses == pytest.approx(wanted[trial_id], abs=1e-6)
