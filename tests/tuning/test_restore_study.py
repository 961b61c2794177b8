"""A search whose study is missing goes on from its table of suggestions, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from vitbench.config import load_results_sweep
from vitbench.errors import UserError
from vitbench.plan.resume import restore_record
from vitbench.records import tables
from vitbench.records.history import History
from vitbench.tuning.search.restore import restore_study
from vitbench.tuning.search.study import StudySource

SHIPPED = Path(__file__).parents[2] / "analysis" / "data" / "mnist_arch"


def resumed(folder: Path, suggestions: int) -> StudySource:
    """What `--resume` asks for stacks, where the search may make so many suggestions."""
    sweep = load_results_sweep(folder)
    search = sweep.search.model_copy(update={"suggestions": suggestions})
    sweep = sweep.model_copy(update={"search": search})
    restore_record(folder)
    history = History.read(folder / tables.LEDGER)
    restore_study(sweep, folder, history)
    return StudySource(sweep, folder / "study.db", channels=1, outputs=10, history=history)


def test_a_shipped_search_resumes_with_nothing_to_train(tmp_path: Path) -> None:
    """Its table of suggestions comes out as it was."""
    folder = tmp_path / "run"
    shutil.copytree(SHIPPED, folder)
    source = resumed(folder, 24)
    assert source.next() is None
    expected = pd.read_parquet(folder / "suggestions.parquet")
    pd.testing.assert_frame_equal(
        pd.DataFrame(source.suggestions()).astype(expected.dtypes), expected
    )


def test_more_suggestions_are_new_ones(tmp_path: Path) -> None:
    """A larger search trains what it has not trained, and no more of it than was asked for."""
    folder = tmp_path / "run"
    shutil.copytree(SHIPPED, folder)
    source = resumed(folder, 26)
    plans = [source.next(), source.next(), source.next()]
    assert plans[2] is None
    known = set(pd.read_parquet(folder / "trials.parquet")["stack_id"])
    assert not {plan.stack_id for plan in plans[:2] if plan is not None} & known


def test_without_any_record_of_suggestions_it_is_refused(tmp_path: Path) -> None:
    """Training the same suggestions again would be paid for twice."""
    folder = tmp_path / "run"
    shutil.copytree(SHIPPED, folder)
    (folder / "suggestions.parquet").unlink()
    with pytest.raises(UserError, match=r"neither study\.db nor suggestions\.parquet"):
        resumed(folder, 24)
    assert not (folder / "study.db").exists()
