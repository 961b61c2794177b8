"""Two gloo workers give the curves of one."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import tiny
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from vitbench.config import Model
from vitbench.config.models import Augment
from vitbench.plan import StackPlan
from vitbench.storage.checkpoints import Checkpoints
from vitbench.storage.place import Place
from vitbench.training.checkpoint import CheckpointStore
from vitbench.training.engine import METRICS, EpochReport, fit
from vitbench.training.parallel import SOLO, Parallel, TorchDistributed

# 21 images in batches of 5: the last batch holds one, so one of two workers has none.
IMAGES = tiny.image_set(train=21)
MEMBERS = ({"lr": 3e-3}, {"lr": 1e-2, "seed": 1})
PLANS = {
    "plain": tiny.plan(*MEMBERS),
    "clipped": tiny.plan(*MEMBERS, clip_norm=0.5, optimizer="adamw"),
    "dropout": tiny.plan(*MEMBERS, dropout=0.3),
    "diverging": tiny.plan(MEMBERS[0], {"lr": 1e300, "seed": 1}, epochs=2),
}
PLANS["augmented"] = tiny.plan(*MEMBERS, augment=Augment(shift=1, flip=True, mixup=0.4))


def built(name: str) -> StackPlan:
    """The same members of a builder's model."""
    model = Model(build=f"sample_models:{name}")
    members = (m.model_copy(update={"model": model}) for m in PLANS["plain"].members)
    return StackPlan(tuple(members))


PLANS["generic"] = built("transformer")
NORMALISED = built("resnet")  # by the batch: on two workers by the halves of each
Curves = dict[str, list[list[float]]]


def curves(
    plan: StackPlan,
    parallel: Parallel = SOLO,
    *,
    stop_after: int | None = None,
    store: CheckpointStore | None = None,
) -> Curves:
    rows: Curves = {}

    def report(epoch: EpochReport) -> bool:
        for row in epoch.rows:
            rows.setdefault(row.trial_id, []).append([getattr(row, name) for name in METRICS])
        return epoch.epoch != stop_after

    result = fit(
        plan,
        IMAGES,
        device=torch.device("cpu"),
        report=report,
        parallel=parallel,
        store=store,
        dtype=torch.float64,
    )
    assert result.stopped == (stop_after is not None)
    return rows


def worker(rank: int, port: int, folder: str) -> None:
    """One process of the group: every plan in turn, then one that is stopped and goes on."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    try:
        parallel = TorchDistributed(torch.device("cpu"))
        seen = {name: curves(plan, parallel) for name, plan in PLANS.items()}
        store = Checkpoints(Place(folder))
        seen["before"] = curves(PLANS["plain"], parallel, stop_after=2, store=store)
        seen["after"] = curves(PLANS["plain"], parallel, store=store)
        seen["normalised"] = curves(NORMALISED, parallel)
        store = Checkpoints(Place(f"{folder}/normalised"))
        seen["normalised before"] = curves(NORMALISED, parallel, stop_after=2, store=store)
        seen["normalised after"] = curves(NORMALISED, parallel, store=store)
        (Path(folder) / f"rows-{rank}.json").write_text(json.dumps(seen))
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two workers left behind; they start once for all tests."""
    folder = tmp_path_factory.mktemp("workers")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(worker, (port, str(folder)), nprocs=2)
    return folder


def seen_by(folder: Path, rank: int) -> dict[str, Curves]:
    seen: dict[str, Curves] = json.loads((folder / f"rows-{rank}.json").read_text())
    return seen


def assert_equal_curves(got: Curves, expected: Curves) -> None:
    assert got.keys() == expected.keys()
    for trial_id, rows in expected.items():
        assert len(got[trial_id]) == len(rows)
        for mine, theirs in zip(got[trial_id], rows, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", PLANS)
def test_two_workers_give_the_curves_of_one(folder: Path, name: str) -> None:
    """To 1e-9 in float64, with a ragged last batch, a worker without images, a diverging member."""
    assert_equal_curves(seen_by(folder, 0)[name], curves(PLANS[name]))


def test_the_diverging_plan_diverges() -> None:
    """Else the case above would show nothing."""
    rows = curves(PLANS["diverging"])
    calm, wild = (member.trial_id for member in PLANS["diverging"].members)
    assert len(rows[calm]) == 2 and len(rows[wild]) == 1


def test_two_workers_stop_and_go_on_together(folder: Path) -> None:
    """Rank 0 alone reports and writes; both stop when it says so and resume where it was."""
    seen = seen_by(folder, 0)
    joined = {trial_id: rows + seen["after"][trial_id] for trial_id, rows in seen["before"].items()}
    assert_equal_curves(joined, curves(PLANS["plain"]))
    assert not any(seen_by(folder, 1).values())
    for member in PLANS["plain"].members:
        names = sorted(p.name for p in (folder / "checkpoints" / member.trial_id).iterdir())
        # the state stays until whoever records the outcome removes it
        kinds = ("best", "last", "state-2")
        assert names == [f"{kind}.{end}" for kind in kinds for end in ("json", "safetensors")]


def test_running_statistics_go_on_together(folder: Path) -> None:
    """Two workers that normalise by their halves resume to the same numbers, bit for bit."""
    seen = seen_by(folder, 0)
    before, after = seen["normalised before"], seen["normalised after"]
    joined = {trial_id: rows + after[trial_id] for trial_id, rows in before.items()}
    assert joined == seen["normalised"]
    for trial_id, rows in curves(NORMALISED).items():
        losses = [row[0] for row in rows]
        assert [row[0] for row in joined[trial_id]] == pytest.approx(losses, rel=0.2)
        assert joined[trial_id] != rows
