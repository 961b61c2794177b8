"""Whole runs of the engine against plain torch, and what must not change them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from reference import Vit
from torch import Tensor

from vitbench.errors import UserError
from vitbench.plan import StackPlan
from vitbench.rng import generator
from vitbench.storage.checkpoints import Checkpoints
from vitbench.storage.place import Place
from vitbench.training import stack as stack_module
from vitbench.training.checkpoint import load_member
from vitbench.training.engine import EpochReport, FitResult, fit, probe
from vitbench.training.stack import Stack

CPU = torch.device("cpu")
IMAGES = tiny.image_set()
MIXED: tuple[dict[str, Any], ...] = (
    {"lr": 3e-3, "seed": 0, "weight_decay": 0.1},
    {"lr": 3e-4, "seed": 1},
    {"lr": 1e-2, "seed": 0, "weight_decay": 0.01},
)


def outcome(result: FitResult, k: int) -> dict[str, Any]:
    """What must be equal between runs: everything but times and the checkpoint's place."""
    apart = ("images_per_s", "wall_s", "checkpoint")
    return {n: v for n, v in result.trials[k].to_json().items() if n not in apart}


def plain_run(plan: StackPlan, k: int, start: dict[str, Tensor]) -> tuple[Vit, list[float]]:
    """One member trained with nothing of the engine but its named streams."""
    train, model = plan.members[k].train, plan.shared.model
    vit = Vit(
        image_size=8,
        channels=1,
        patch_grid=model.patch_grid,
        depth=model.depth,
        heads=model.heads,
        width=model.width,
        mlp=model.mlp_width,
        outputs=3 if train.label is None else 1,
    )
    vit = vit.double().take(start)
    kinds = {"radam": torch.optim.RAdam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    extra = {"momentum": train.momentum} if train.optimizer == "sgd" else {}
    optimizer = kinds[train.optimizer](vit.decay_groups(train.weight_decay), lr=train.lr, **extra)
    pixels = torch.from_numpy(IMAGES.train.images).double() / 255
    pixels = (pixels - IMAGES.mean[0]) / IMAGES.std[0]
    targets = torch.from_numpy(IMAGES.train.targets[:, 0])
    if train.label is not None:
        targets = (targets == IMAGES.classes.index(train.label)).double()
    losses = []
    for epoch in range(1, train.epochs + 1):
        order = torch.randperm(len(targets), generator=generator(train.seed, "order", epoch))
        total = 0.0
        for index in order.split(train.batch_size):
            logits = vit(pixels[index])
            if train.label is None:
                loss = torch.nn.functional.cross_entropy(logits, targets[index])
            else:
                loss = torch.nn.functional.binary_cross_entropy_with_logits(
                    logits[:, 0], targets[index]
                )
            optimizer.zero_grad()
            loss.backward()
            if train.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(vit.parameters(), train.clip_norm)
            optimizer.step()
            total += loss.item() * len(index)
        losses.append(total / len(targets))
    return vit, losses


@pytest.mark.parametrize("optimizer", ["radam", "adamw", "sgd"])
@pytest.mark.parametrize("shared", [{}, {"clip_norm": 0.7}], ids=["plain", "clipped"])
@pytest.mark.parametrize("size", [1, 3])
def test_members_equal_independent_runs(optimizer: str, shared: dict[str, Any], size: int) -> None:
    """15 steps with a ragged last batch, mixed lr, decay and seeds: torch.optim's run to 1e-9."""
    plan = tiny.plan(*MIXED[:size], optimizer=optimizer, **shared)
    stack = Stack(plan, IMAGES, CPU, dtype=torch.float64)
    starts = [stack.model.member_state(k) for k in range(size)]
    losses = torch.stack([stack.train_epoch(e)[0] for e in (1, 2, 3)])
    for k in range(size):
        expected, expected_losses = plain_run(plan, k, starts[k])
        got = Vit(
            image_size=8, channels=1, patch_grid=2, depth=2, heads=2, width=8, mlp=12, outputs=3
        )
        got = got.double().take(stack.model.member_state(k))
        for name, parameter in expected.named_parameters():
            torch.testing.assert_close(
                got.get_parameter(name), parameter, rtol=0, atol=1e-9, msg=name
            )
        assert losses[:, k].tolist() == pytest.approx(expected_losses, abs=1e-9)


def test_labels_of_one_stack_equal_independent_runs() -> None:
    """Members that each learn a label of their own, with one logit each."""
    plan = tiny.plan({"label": "a"}, {"label": "c", "seed": 2}, {"label": "a", "lr": 1e-2})
    stack = Stack(plan, IMAGES, CPU, dtype=torch.float64)
    starts = [stack.model.member_state(k) for k in range(3)]
    losses = torch.stack([stack.train_epoch(e)[0] for e in (1, 2, 3)])
    for k in range(3):
        expected = plain_run(plan, k, starts[k])[1]
        assert losses[:, k].tolist() == pytest.approx(expected, abs=1e-9)


def test_evaluation_is_over_the_whole_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean loss and accuracy from the model's own logits, in unequal batches."""
    monkeypatch.setitem(stack_module._EVAL_BATCH, "cpu", 4)
    stack = Stack(tiny.plan(*MIXED), IMAGES, CPU, dtype=torch.float64)
    loss_K, accuracy_K = stack.evaluate("val")
    pixels = (torch.from_numpy(IMAGES.val.images).double() / 255 - 0.3) / 0.25
    targets = torch.from_numpy(IMAGES.val.targets[:, 0])
    logits = stack.model(pixels.unsqueeze(0))
    for k in range(3):
        expected = torch.nn.functional.cross_entropy(logits[k], targets).item()
        assert loss_K[k].item() == pytest.approx(expected, abs=1e-12)
        hits = (logits[k].argmax(-1) == targets).double().mean().item()
        assert accuracy_K[k].item() == pytest.approx(hits)


def test_the_stack_size_changes_curves_by_rounding_only() -> None:
    """A member alone and in a stack of three."""
    together, _ = tiny.train(IMAGES, tiny.plan(*MIXED), dtype=torch.float64)
    for member in MIXED:
        alone, _ = tiny.train(IMAGES, tiny.plan(member), dtype=torch.float64)
        ((trial_id, rows),) = alone.items()
        for mine, theirs in zip(rows, together[trial_id], strict=True):
            assert mine == pytest.approx(theirs, abs=1e-9)


def test_position_changes_nothing_bit_for_bit() -> None:
    """The same three members in another order give the same numbers."""
    one, _ = tiny.train(IMAGES, tiny.plan(*MIXED))
    two, _ = tiny.train(IMAGES, tiny.plan(*MIXED[::-1]))
    assert one == two


def test_the_same_seed_is_the_same_start_and_order_in_every_arm() -> None:
    """Arms of one seed start equal and share their batches; another seed has its own."""
    plan = tiny.plan({"seed": 4, "lr": 1e-3}, {"seed": 4, "lr": 1e-2}, {"seed": 5, "lr": 1e-3})
    stack = Stack(plan, IMAGES, CPU)
    flat = stack.model.flat
    assert torch.equal(flat[0], flat[1]) and not torch.equal(flat[0], flat[2])
    first, second = stack._data.order(1), stack._data.order(2)
    assert stack._data._streams.of_member == (0, 0, 1)
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    assert first.sort(dim=1).values.tolist() == [list(range(22))] * 2


def test_a_diverged_member_is_recorded_and_disturbs_nobody(tmp_path: Path) -> None:
    """A member that blows up is frozen with its epoch and is never best; the others go on."""
    wild = {"lr": 1e30, "seed": 3}
    calm, _ = tiny.train(IMAGES, tiny.plan(MIXED[0], {"lr": 1e-5, "seed": 3}, MIXED[1]))
    plan = tiny.plan(MIXED[0], wild, MIXED[1])
    rows, result = tiny.train(IMAGES, plan, store=Checkpoints(Place(str(tmp_path))))
    for k in (0, 2):
        trial_id = plan.members[k].trial_id
        assert rows[trial_id] == calm[trial_id]
        assert result.trials[k].status == "finished"
    bad = result.trials[1]
    assert bad.status == "diverged" and bad.diverged_epoch == 1
    assert len(rows[plan.members[1].trial_id]) == 1
    assert math.isnan(rows[plan.members[1].trial_id][0]["train_loss"])
    assert bad.best_epoch is None
    assert bad.best_val_loss is not None and math.isnan(bad.best_val_loss)
    assert not (tmp_path / plan.members[1].trial_id / "best.safetensors").exists()


def test_a_stack_of_diverged_members_ends_early() -> None:
    """Nothing is left to train."""
    reports: list[int] = []

    def report(epoch: EpochReport) -> bool:
        reports.append(epoch.epoch)
        return True

    result = fit(tiny.plan({"lr": 1e30}, epochs=9), IMAGES, device=CPU, report=report)
    assert len(reports) < 9 and result.trials[0].status == "diverged"


def test_the_best_epoch_is_the_one_of_lowest_validation_loss() -> None:
    """By validation loss, the first where equal; its test figures go with it."""
    rows, result = tiny.train(IMAGES, tiny.plan(*MIXED, epochs=6))
    for k, member in enumerate(tiny.plan(*MIXED, epochs=6).members):
        best = min(rows[member.trial_id], key=lambda row: (row["val_loss"], row["epoch"]))
        assert result.trials[k].best_epoch == best["epoch"]
        for name in ("val_loss", "test_loss", "val_accuracy", "test_accuracy"):
            assert getattr(result.trials[k], f"best_{name}") == best[name]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("stop_after", [1, 2, 3])
@pytest.mark.parametrize("optimizer", ["radam", "sgd"])
def test_resume_is_exact(tmp_path: Path, stop_after: int, dropout: float, optimizer: str) -> None:
    """Interrupted after any epoch, a run ends with the numbers of one that was not."""
    plan = tiny.plan(*MIXED, epochs=4, dropout=dropout, optimizer=optimizer)
    whole, expected = tiny.train(IMAGES, plan)
    store = Checkpoints(Place(str(tmp_path)))
    before, stopped = tiny.train(IMAGES, plan, store=store, stop_after=stop_after)
    assert stopped.stopped
    after, result = tiny.train(IMAGES, plan, store=store)
    assert not result.stopped
    for k, member in enumerate(plan.members):
        assert before[member.trial_id] + after[member.trial_id] == whole[member.trial_id]
        assert outcome(result, k) == outcome(expected, k)


def test_a_crash_between_members_resumes_at_the_common_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half the stack has written epoch 2 when the process dies: epoch 1 is where all meet."""
    plan = tiny.plan(*MIXED, epochs=4)
    whole, expected = tiny.train(IMAGES, plan)
    store, real, calls = Checkpoints(Place(str(tmp_path))), Checkpoints.save, iter(range(99))

    def failing(self: Checkpoints, *args: Any, **kwargs: Any) -> None:
        if next(calls) == 4:
            raise KeyboardInterrupt
        real(self, *args, **kwargs)

    monkeypatch.setattr(Checkpoints, "save", failing)
    with pytest.raises(KeyboardInterrupt):
        tiny.train(IMAGES, plan, store=store, checkpoint_every_s=0.0)
    monkeypatch.undo()
    trial_ids = [member.trial_id for member in plan.members]
    assert (tmp_path / "checkpoints" / trial_ids[0] / "state-2.safetensors").exists()
    assert store.common_epoch(trial_ids) == 1
    after, result = tiny.train(IMAGES, plan, store=store)
    for k, trial_id in enumerate(trial_ids):
        assert after[trial_id] == whole[trial_id][1:]
        assert outcome(result, k) == outcome(expected, k)


def test_states_of_other_images_are_refused(tmp_path: Path) -> None:
    """Two sources of one name would make a curve of two halves."""
    plan, store = tiny.plan(*MIXED), Checkpoints(Place(str(tmp_path)))
    tiny.train(IMAGES, plan, store=store, stop_after=1)
    others = dataclasses.replace(IMAGES, checksum="1" * 64)
    with pytest.raises(UserError, match="other images"):
        fit(plan, others, device=CPU, report=lambda epoch: True, store=store)


def test_read_only_images_train_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    """Memory-mapped and shared images are read-only; they are used in place."""
    images = tiny.image_set()
    for split in (images.train, images.val, images.test):
        split.images.flags.writeable = False
    stack = Stack(tiny.plan(MIXED[0]), images, CPU)
    stack.train_epoch(1)
    assert stack._data._splits["train"].images.data_ptr() == images.train.images.ctypes.data
    assert not recwarn.list


def test_halves_of_a_stack_go_on_from_its_checkpoints(tmp_path: Path) -> None:
    """After out of memory each half continues where the stack was."""
    store = Checkpoints(Place(str(tmp_path)))
    whole, _ = tiny.train(IMAGES, tiny.plan(*MIXED, epochs=4), dtype=torch.float64)
    tiny.train(IMAGES, tiny.plan(*MIXED, epochs=4), store=store, stop_after=2, dtype=torch.float64)
    for part in (MIXED[:2], MIXED[2:]):
        rows, _ = tiny.train(IMAGES, tiny.plan(*part, epochs=4), store=store, dtype=torch.float64)
        for trial_id, tail in rows.items():
            assert [row["epoch"] for row in tail] == [3, 4]
            for mine, theirs in zip(tail, whole[trial_id][2:], strict=True):
                assert mine == pytest.approx(theirs, abs=1e-9)


def test_best_and_last_load_alone_and_score_what_was_recorded(tmp_path: Path) -> None:
    """Any member loads as a stack of one and gives its recorded validation loss."""
    plan = tiny.plan(*MIXED, epochs=4)
    _, result = tiny.train(IMAGES, plan, store=Checkpoints(Place(str(tmp_path))))
    pixels = (torch.from_numpy(IMAGES.val.images).float() / 255 - 0.3) / 0.25
    targets = torch.from_numpy(IMAGES.val.targets[:, 0])
    for k, member in enumerate(plan.members):
        folder = tmp_path / "checkpoints" / member.trial_id
        assert sorted(p.name for p in folder.iterdir()) == [
            f"{kind}.{end}" for kind in ("best", "last") for end in ("json", "safetensors")
        ]
        for kind, column in (("best", "best_val_loss"), ("last", "val_loss")):
            model, info = load_member(folder / f"{kind}.safetensors")
            assert model.members == 1 and info["trial_id"] == member.trial_id
            loss = torch.nn.functional.cross_entropy(model(pixels.unsqueeze(0))[0], targets)
            assert loss.item() == pytest.approx(getattr(result.trials[k], column), rel=1e-5)


def test_dropout_trains_and_is_off_in_evaluation() -> None:
    """Training loss differs from a run without dropout at the first epoch already."""
    plain, _ = tiny.train(IMAGES, tiny.plan(*MIXED))
    dropped, _ = tiny.train(IMAGES, tiny.plan(*MIXED, dropout=0.5))
    first = [next(iter(rows.values()))[0]["train_loss"] for rows in (plain, dropped)]
    assert abs(first[0] - first[1]) > 1e-3
    stack = Stack(tiny.plan(*MIXED, dropout=0.5), IMAGES, CPU)
    assert torch.equal(stack.evaluate("val")[0], stack.evaluate("val")[0])


def test_explicit_bfloat16_is_honoured_on_the_cpu() -> None:
    """A setting is never accepted and ignored: half precision gives other, close numbers."""
    exact, _ = tiny.train(IMAGES, tiny.plan(MIXED[0], precision="float32", epochs=1))
    rounded, _ = tiny.train(IMAGES, tiny.plan(MIXED[0], precision="bfloat16", epochs=1))
    one, two = (next(iter(r.values()))[0]["train_loss"] for r in (exact, rounded))
    assert one != two and one == pytest.approx(two, rel=0.05)


def test_nothing_touches_the_global_random_state() -> None:
    """Only named streams are drawn from, dropout included."""
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    tiny.train(IMAGES, tiny.plan(*MIXED, dropout=0.2, epochs=1))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


@pytest.mark.parametrize(
    ("every", "evaluated"),
    [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6, 7]), (9, [7]), ("log", [1, 2, 4, 7])],
)
def test_evaluations_change_what_is_known_not_what_is_trained(
    every: int | str, evaluated: list[int]
) -> None:
    """Rows of all epochs, with losses of unseen images where asked and at the end; the best among
    them; weights are those of a run that is evaluated each epoch."""
    shared = {"epochs": 7, "lr": 3e-3}
    every_rows, every_result = tiny.train(IMAGES, tiny.plan(**shared))
    rows, result = tiny.train(IMAGES, tiny.plan(**shared, evaluate_every=every))
    (full,), (sparse,), last = every_rows.values(), rows.values(), result.trials[0]
    assert [row["epoch"] for row in sparse] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["train_loss"] for row in sparse] == [row["train_loss"] for row in full]
    for one, whole in zip(sparse, full, strict=True):
        seen = one["epoch"] in evaluated
        for name in ("val_loss", "test_loss", "val_accuracy", "test_accuracy"):
            assert one[name] == (whole[name] if seen else None)
    losses = {row["epoch"]: row["val_loss"] for row in full if row["epoch"] in evaluated}
    assert last.best_epoch == min(losses, key=lambda epoch: losses[epoch])
    assert last.best_val_loss == losses[last.best_epoch]
    assert last.val_loss == every_result.trials[0].val_loss


def test_a_stop_between_evaluations_is_judged_and_resumed(tmp_path: Path) -> None:
    """An interrupted model tells its losses at that epoch; the resume is as if nothing was."""
    plan = tiny.plan(*MIXED, epochs=6, evaluate_every=4)
    whole_rows, whole = tiny.train(IMAGES, plan)
    _, each = tiny.train(IMAGES, tiny.plan(*MIXED, epochs=6), stop_after=5)
    broken = Checkpoints(Place(str(tmp_path)))
    _, stopped = tiny.train(IMAGES, plan, stop_after=5, store=broken)
    for k in range(3):
        assert stopped.trials[k].val_loss == each.trials[k].val_loss
        assert stopped.trials[k].best_epoch == 4
    rows, resumed = tiny.train(IMAGES, plan, store=broken)
    assert [outcome(resumed, k) for k in range(3)] == [outcome(whole, k) for k in range(3)]
    assert rows == {key: of_trial[5:] for key, of_trial in whole_rows.items()}


def test_divergence_is_seen_without_an_evaluation() -> None:
    """In the epoch in which the training loss stops being finite; its losses are NaN, not gaps."""
    rows, result = tiny.train(
        IMAGES, tiny.plan({"lr": 1e9}, {"lr": 1e-3}, epochs=6, evaluate_every=6)
    )
    sick = result.trials[0]
    assert sick.diverged_epoch is not None and sick.diverged_epoch < 6
    last = rows[sick.trial_id][-1]
    assert last["epoch"] == sick.diverged_epoch and math.isnan(last["val_loss"])
    assert result.trials[1].best_epoch == 6


def test_probe_forecasts_seconds_per_epoch() -> None:
    """A positive number, also with more steps than an epoch has."""
    assert 0 < probe(tiny.plan(*MIXED), IMAGES, device=CPU, steps=2) < 60
    assert 0 < probe(tiny.plan(*MIXED), IMAGES, device=CPU, steps=99) < 60


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These matrices are far too small for threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


IMPATIENT = ({"lr": 0.1, "seed": 0}, {"lr": 0.3, "seed": 1}, {"lr": 1e-3, "seed": 1})


@pytest.mark.parametrize("every", [1, 2])
def test_a_model_out_of_patience_stops_where_its_own_curve_says(every: int) -> None:
    """Its epochs are the first of a run without patience; the others train on undisturbed."""
    asked = {"epochs": 12, "evaluate_every": every}
    whole, _ = tiny.train(IMAGES, tiny.plan(*IMPATIENT, **asked))
    impatient = tiny.plan(*IMPATIENT, **asked, patience=2)
    rows, result = tiny.train(IMAGES, impatient)
    ends = []
    for k, of_trial in enumerate(whole.values()):
        best, end = math.inf, 12
        for row in of_trial:  # independent of the engine's own memory of the best epoch
            if row["val_loss"] is None:
                continue
            if row["val_loss"] < best:
                best, best_epoch = row["val_loss"], row["epoch"]
            elif row["epoch"] - best_epoch >= 2:
                end = row["epoch"]
                break
        ends.append(end)
        told = result.trials[k]
        assert told.status == ("stopped" if end < 12 else "finished")
        assert (told.epochs, told.best_epoch) == (end, best_epoch)
        got = [{**row, "trial_id": ""} for row in rows[impatient.members[k].trial_id]]
        assert got == [{**row, "trial_id": ""} for row in of_trial[:end]]
        assert told.val_loss == of_trial[end - 1]["val_loss"]
    assert len(set(ends)) > 1 and min(ends) < 12, "some stop, at different epochs"


@pytest.mark.parametrize("stop_after", [3, 11])
def test_patience_is_exact_under_resume(tmp_path: Path, stop_after: int) -> None:
    """Interrupted before and after some model has stopped: nothing is trained on, or again."""
    plan = tiny.plan(*IMPATIENT, epochs=12, patience=2)
    whole, expected = tiny.train(IMAGES, plan)
    store = Checkpoints(Place(str(tmp_path)))
    before, _ = tiny.train(IMAGES, plan, store=store, stop_after=stop_after)
    after, result = tiny.train(IMAGES, plan, store=store)
    for k, member in enumerate(plan.members):
        key = member.trial_id
        assert before[key] + after.get(key, []) == whole[key]
        assert outcome(result, k) == outcome(expected, k)
