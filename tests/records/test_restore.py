"""Results that hold tables alone get their ledger back, and are resumed without training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vitbench.config import Sweep, Train, TrialConfig, identity, load_results_sweep
from vitbench.plan import expand
from vitbench.plan.resume import check_same, find, remainder, restore_record
from vitbench.records import tables
from vitbench.records.history import History

SHIPPED = Path(__file__).parents[2] / "analysis" / "data"
OLD = Path(__file__).parents[1] / "old_results"  # of versions before ids had a version
GRIDS = (
    *(OLD / name for name in ("celeba_labels", "label_control")),
    *(
        SHIPPED / name
        for name in ("celeba_labels", "label_attention", "label_control", "mnist_lr_sensitivity")
    ),
)
ALL = (*GRIDS, SHIPPED / "mnist_arch")


def _named(folder: Path) -> str:
    return f"{folder.parent.name}-{folder.name}"


@pytest.fixture
def shipped(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of results that hold tables alone."""
    folder = tmp_path / request.param.name
    shutil.copytree(request.param, folder)
    return folder


@pytest.mark.parametrize("shipped", ALL, indirect=True, ids=_named)
def test_tables_of_the_restored_ledger_are_those_it_was_restored_from(shipped: Path) -> None:
    """Column by column, to the last bit: nothing is lost."""
    restore_record(shipped)
    for name, rebuilt in zip(
        ("trials", "epochs", "labels"), tables.build_all(shipped), strict=True
    ):
        if not (shipped / f"{name}.parquet").is_file():
            assert not len(rebuilt)
            continue
        expected = pd.read_parquet(shipped / f"{name}.parquet")
        pd.testing.assert_frame_equal(rebuilt[list(expected)], expected, check_exact=True)


@pytest.mark.parametrize("shipped", GRIDS, indirect=True, ids=_named)
def test_a_shipped_grid_resumes_with_nothing_to_train_after_a_setting_was_added(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the oldest one, whose ids were made from fewer settings than those of today."""

    class Train2(Train):
        ema: float = 0.0

    class Trial2(TrialConfig):
        train: Train2

    def trial2(trial: TrialConfig, **more: Any) -> Trial2:
        train = Train2.model_validate({**trial.train.model_dump(), **more})
        return Trial2(dataset=trial.dataset, model=trial.model, train=train)

    before = load_results_sweep(shipped)
    check_same(before, before, shipped)
    assert find(shipped.parent.parent, before.name, str(shipped)) == shipped
    restore_record(shipped)
    monkeypatch.setitem(identity.ADDED, "train", {**identity.ADDED["train"], "ema": 0.0})
    trials = [trial2(trial) for trial in expand(before)]
    history = History.read(shipped / tables.LEDGER)
    left = remainder(trials, history, lambda _: set())
    assert (left.stacks, left.new) == ([], [])
    assert left.text() == f"{len(trials)} done, 0 retried, 0 repeated"
    changed = [trial2(trial, ema=0.5) for trial in expand(before)]
    assert len(remainder(changed, history, lambda _: set()).new) == len(trials)


@pytest.mark.parametrize("shipped", [OLD / "celeba_labels"], indirect=True, ids=_named)
def test_what_had_not_ended_is_trained_and_the_rest_is_not(shipped: Path) -> None:
    """A trial that was running has epochs and no end; one that was planned has neither."""
    trials = pd.read_parquet(shipped / "trials.parquet")
    trials.loc[0, "status"], trials.loc[1, "status"] = "running", "planned"
    trials.to_parquet(shipped / "trials.parquet", index=False)
    restore_record(shipped)
    sweep: Sweep = load_results_sweep(shipped)
    left = remainder(expand(sweep), History.read(shipped / tables.LEDGER), lambda _: set())
    waiting = [member.trial_id for stack in left.stacks for member in stack.members]
    assert waiting == trials["trial_id"][:2].tolist()
    assert left.done == len(trials) - 2


@pytest.mark.parametrize("shipped", [OLD / "label_control"], indirect=True, ids=_named)
def test_a_ledger_that_is_there_is_left_alone(shipped: Path) -> None:
    """It knows more than the tables."""
    (shipped / tables.LEDGER).write_text("mine")
    restore_record(shipped)
    assert (shipped / tables.LEDGER).read_text() == "mine"
