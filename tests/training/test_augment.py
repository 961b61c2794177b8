"""Changed images, smoothed targets and users' losses, against loops and torch's own losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from test_engine import IMAGES, MIXED

from vitbench import user_code
from vitbench.config.models import Augment
from vitbench.rng import generator
from vitbench.storage.checkpoints import Checkpoints
from vitbench.storage.place import Place
from vitbench.training.augment import Augmentation
from vitbench.training.objective import Objective
from vitbench.training.stack import Stack, losses_and_hits
from vitbench.user_code import NO_CODE, Code

CPU = torch.device("cpu")
EVERY = Augment(shift=2, flip=True, cutout=3, mixup=0.4)


def numbers(seed: int, use: str, epoch: int) -> np.random.Generator:
    """The stream of one use, by its name."""
    named = generator(seed, "augment", use, epoch)
    return np.random.default_rng(named.initial_seed())


def by_loops(image: np.ndarray, move: np.ndarray, flip: bool, hole: np.ndarray) -> np.ndarray:
    """One image, pixel by pixel."""
    size = image.shape[-1]
    out = np.zeros_like(image)
    for y in range(size):
        for x in range(size):
            from_x = min(max(x + move[1], 0), size - 1)
            from_x = size - 1 - from_x if flip else from_x
            out[:, y, x] = image[:, min(max(y + move[0], 0), size - 1), from_x]
            top, left = hole - EVERY.cutout // 2
            if top <= y < top + EVERY.cutout and left <= x < left + EVERY.cutout:
                out[:, y, x] = 0.0
    return out


def test_images_are_moved_mirrored_and_blanked() -> None:
    """Every pixel of two streams, from the draws that seed and epoch name."""
    draw = Augmentation(EVERY, [4, 9], 3, images=12, batch_size=5, image_size=8, device=CPU)
    images = torch.randn(2, 5, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([[5, 6, 7, 8, 9], [0, 3, 1, 11, 10]])
    found = draw(images, rows)
    changed = 0
    for s, seed in enumerate((4, 9)):
        moves = numbers(seed, "shift", 3).integers(-2, 3, (12, 2))
        flips = numbers(seed, "flip", 3).random(12) < 0.5
        holes = numbers(seed, "cutout", 3).integers(0, 8, (12, 2))
        for b, row in enumerate(rows[s].tolist()):
            expected = by_loops(images[s, b].numpy(), moves[row], bool(flips[row]), holes[row])
            assert np.array_equal(found[s, b].numpy(), expected)
            changed += not np.array_equal(expected, images[s, b].numpy())
    assert changed == 10


def test_partners_stay_within_their_batch_and_its_share_is_one_number() -> None:
    """So that any number of workers can mix the same batch."""
    draw = Augmentation(EVERY, [1], 1, images=12, batch_size=5, image_size=8, device=CPU)
    for batch in torch.arange(12).split(5):
        assert sorted(draw.partners(batch)[0].tolist()) == batch.tolist()
        assert draw.lam_SN is not None and len(set(draw.lam_SN[0, batch].tolist())) == 1
    other = Augmentation(EVERY, [1], 2, images=12, batch_size=5, image_size=8, device=CPU)
    assert not torch.equal(draw.partners(torch.arange(12)), other.partners(torch.arange(12)))


def test_a_mixed_step_is_that_of_plain_torch() -> None:
    """One epoch of SGD in float64: mixed images, losses of both targets, to 1e-9."""
    augment = Augment(mixup=0.4, shift=1)
    plan = tiny.plan({"seed": 2, "lr": 0.05}, optimizer="sgd", augment=augment)
    stack = Stack(plan, IMAGES, CPU, dtype=torch.float64)
    start = stack.model.flat.detach().clone()
    loss_K, _ = stack.train_epoch(1)
    after = stack.model.flat.detach().clone()

    again = Stack(plan, IMAGES, CPU, dtype=torch.float64)
    count = len(IMAGES.train)
    order = torch.randperm(count, generator=generator(2, "order", 1))
    moves = torch.from_numpy(numbers(2, "shift", 1).integers(-1, 2, (count, 2)))
    pairs, lams = numbers(2, "mixup", 1), numbers(2, "lambda", 1).beta(0.4, 0.4, 5)
    pixels = (torch.from_numpy(IMAGES.train.images).double() / 255 - 0.3) / 0.25
    targets = torch.from_numpy(IMAGES.train.targets[:, 0])
    at = torch.arange(8)
    rows, columns = ((at + moves[:, n : n + 1]).clamp(0, 7) for n in (0, 1))
    moved = torch.stack(
        [pixels[i][:, y][:, :, x] for i, y, x in zip(order, rows, columns, strict=True)]
    )
    optimizer = torch.optim.SGD([again.model.flat], lr=0.05, momentum=0.9)
    assert torch.equal(again.model.flat, start)
    total = 0.0
    for step, batch in enumerate(torch.arange(count).split(5)):
        partner = batch[0] + torch.from_numpy(pairs.permutation(len(batch)))
        lam = float(lams[step])
        mixed = lam * moved[batch] + (1 - lam) * moved[partner]
        logits = again.model(mixed.unsqueeze(0))[0]
        one, two = (
            torch.nn.functional.cross_entropy(logits, targets[order[rows]])
            for rows in (batch, partner)
        )
        loss = lam * one + (1 - lam) * two
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    torch.testing.assert_close(after, again.model.flat.detach(), rtol=0, atol=1e-9)
    assert loss_K.item() == pytest.approx(total / count, abs=1e-9)


def test_draws_are_paired_resumed_and_the_same_in_every_stack(tmp_path: Path) -> None:
    """A member alone is the member of a stack; an interrupted run ends with the same numbers."""
    shared: dict[str, Any] = {"epochs": 4, "augment": EVERY}
    whole, _ = tiny.train(IMAGES, tiny.plan(*MIXED, **shared), dtype=torch.float64)
    plain, _ = tiny.train(IMAGES, tiny.plan(*MIXED, epochs=4), dtype=torch.float64)
    ((trial_id, alone),) = tiny.train(IMAGES, tiny.plan(MIXED[2], **shared), dtype=torch.float64)[
        0
    ].items()
    for mine, theirs in zip(alone, whole[trial_id], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-9)
    assert alone[0]["train_loss"] not in [rows[0]["train_loss"] for rows in plain.values()]
    store = Checkpoints(Place(str(tmp_path)))
    plan = tiny.plan(*MIXED, **shared)
    before, _ = tiny.train(IMAGES, plan, store=store, stop_after=2, dtype=torch.float64)
    after, _ = tiny.train(IMAGES, plan, store=store, dtype=torch.float64)
    for member in plan.members:
        assert before[member.trial_id] + after[member.trial_id] == whole[member.trial_id]


def test_smoothed_targets_are_torchs() -> None:
    """Of classes torch's label_smoothing; of labels the mean towards one half."""
    logits = torch.randn(2, 6, 4, dtype=torch.float64)
    targets = torch.randint(0, 4, (2, 6))
    plan = tiny.plan(label_smoothing=0.2)
    found = Objective(plan.shared.train, binary=False)(logits, targets)
    for k in range(2):
        expected = torch.nn.functional.cross_entropy(
            logits[k], targets[k], label_smoothing=0.2, reduction="none"
        )
        torch.testing.assert_close(found[k], expected)
    truth = torch.randint(0, 2, (2, 6, 4)).double()
    found = Objective(plan.shared.train, binary=True)(logits, truth)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, truth * 0.8 + 0.1, reduction="none"
    )
    torch.testing.assert_close(found, expected.mean(-1))


def test_a_users_loss_trains_and_tables_keep_the_cross_entropy(tmp_path: Path) -> None:
    """Twice the cross entropy is twice the learning rate of SGD; the recorded losses agree."""
    text = (
        "from torch.nn.functional import cross_entropy\n"
        "def twice(logits, targets):\n"
        "    return 2 * cross_entropy(logits, targets, reduction='none')\n"
    )
    (tmp_path / "own_loss.py").write_text(text)
    Code({"own_loss.py": text}, str(tmp_path)).use()
    try:
        assert callable(user_code.load("own_loss:twice"))
        shared: dict[str, Any] = {"optimizer": "sgd", "epochs": 2}
        twice = tiny.plan({"lr": 0.01}, loss="own_loss:twice", **shared)
        own, _ = tiny.train(IMAGES, twice, dtype=torch.float64)
        plain, _ = tiny.train(IMAGES, tiny.plan({"lr": 0.02}, **shared), dtype=torch.float64)
    finally:
        NO_CODE.use()
    for mine, theirs in zip(*own.values(), *plain.values(), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-9)


def test_the_plain_loss_is_the_tables() -> None:
    """Without smoothing nothing is computed twice."""
    assert Objective(tiny.plan().shared.train, binary=False).is_plain
    logits, targets = torch.randn(1, 3, 4), torch.randint(0, 4, (1, 3))
    expected, _ = losses_and_hits(logits, targets, binary=False)
    assert torch.equal(Objective(tiny.plan().shared.train, binary=False)(logits, targets), expected)
