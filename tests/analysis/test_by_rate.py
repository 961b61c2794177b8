"""Outcomes by learning rate: the table that a paper pastes says what the trials say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import result_folder

from vitbench.analysis import results
from vitbench.analysis.learning_rate import by_rate


def test_means_are_over_seeds_and_a_diverged_seed_counts_with_its_start(tmp_path: Path) -> None:
    """The loss before training, and for an accuracy the chance level, as everywhere else."""
    opened = results.load(result_folder.make(tmp_path / "grid"))
    rows = by_rate.table(opened)
    assert [row["lr"] for row in rows] == [0.0001, 0.001, 0.01, 0.1, 1.0]
    assert [row["diverged"] for row in rows] == [0, 0, 0, 0, 6]
    assert [row["lowest"] for row in rows] == [False, False, True, False, False]
    seen = opened.trials.query("lr == 0.01")["test_loss"].astype(float)
    mean = rows[2]["test_loss"]
    assert mean.mean == pytest.approx(seen.mean())
    # The 97.5 % quantile of Student's t with five degrees of freedom, from a table.
    assert mean.half == pytest.approx(2.5706 * seen.std() / np.sqrt(6), rel=1e-4)
    assert rows[4]["val_loss"].mean == pytest.approx(2.3)
    assert rows[4]["val_accuracy"].mean == pytest.approx(np.exp(-2.3))
    assert by_rate.table(opened, at_most=2) == rows[:2]


def test_a_single_rate_and_a_search_have_no_table(tmp_path: Path) -> None:
    """There is nothing to compare; a sampler draws no common rates."""
    text = result_folder.GRID.replace("0.0001, 0.001, 0.01, 0.1, 1.0", "0.01")
    assert by_rate.table(results.load(result_folder.make(tmp_path / "one", text))) == []


def test_a_rate_with_stopped_seeds_is_never_the_lowest(tmp_path: Path) -> None:
    """Three seeds of the best rate have no loss at the end: no mean is of those that survived."""
    opened = results.load(result_folder.make(tmp_path / "grid"))
    early = (opened.trials["lr"] == 0.01) & (opened.trials["seed"] < 3)
    opened.trials.loc[early, "status"] = "stopped"
    rows = by_rate.table(opened)
    assert [row["seeds"] for row in rows] == [6, 6, 3, 6, 6]
    assert not rows[2]["lowest"] and sum(row["lowest"] for row in rows) == 1


def test_a_rate_without_an_end_has_a_row_without_numbers(tmp_path: Path) -> None:
    """A sweep that is still running."""
    made = result_folder.make(tmp_path / "part", until=7)
    rows = by_rate.table(results.load(made))
    assert [row["seeds"] for row in rows] == [6, 1, 0, 0, 0]
    assert rows[1]["val_loss"].half is None and rows[4]["val_loss"] is None
    # The one seed at 0.001 has a lower loss than the six at 0.0001, and is not called the lowest.
    assert rows[1]["val_loss"].mean < rows[0]["val_loss"].mean
    assert [row["lowest"] for row in rows] == [True, False, False, False, False]
