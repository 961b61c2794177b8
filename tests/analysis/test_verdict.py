"""The verdict that leads a report: three lines at most, of the findings that are there."""

from __future__ import annotations

from pathlib import Path

import pytest
import result_folder

from vitbench.analysis import results, summary
from vitbench.analysis.findings import render
from vitbench.analysis.report.verdict import MOST, verdict

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(p.parent for p in (ROOT / "analysis" / "data").glob("*/sweep.yaml"))


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda p: p.name)
def test_shipped_results_have_a_verdict_of_three_lines_at_most(folder: Path) -> None:
    """Short, none of them empty, each shorter than the finding it stands for would allow."""
    lines = verdict(summary.summarise(results.load(folder)))
    assert 1 <= len(lines) <= MOST
    assert all(line[0].isupper() and line[-1] in ".!" and len(line) < 260 for line in lines)


def test_a_grid_over_rates_has_its_best_rate_its_range_and_who_diverged(tmp_path: Path) -> None:
    """Each from the finding of the same kind; chance stands beside the accuracy."""
    made = result_folder.make(tmp_path / "grid")
    best, window, gone = verdict(summary.summarise(results.load(made)))
    assert best.startswith("Learning rate 0.01 has the lowest mean validation loss of 5 settings")
    assert "test accuracy 0.500 (chance 0.1)" in best and "Better than 4 of the other 4" in best
    assert "within 0.1 nats of the lowest loss; from 1 on some seed" in window
    assert gone == "6 models diverged, at learning rate 1."


def test_three_seeds_and_three_rates_are_told_what_they_lack(tmp_path: Path) -> None:
    """In words that need no look at the code."""
    text = result_folder.GRID.replace("0.0001, 0.001, 0.01, 0.1, 1.0", "0.001, 0.01, 0.1")
    made = result_folder.make(tmp_path / "few", text.replace("0, 1, 2, 3, 4, 5", "0, 1, 2"))
    best, window = verdict(summary.summarise(results.load(made)))
    assert "3 seeds cannot show that it is better than another" in best
    assert window == "Sensitivity needs at least 5 learning rates; 3 can only be ranked."


def test_every_kind_that_may_lead_has_a_short_sentence() -> None:
    """A kind without one would stop the report, in results that no test holds."""
    from vitbench.analysis.report import verdict as module

    kinds = {kind for line in module._LINES for kind in line}
    assert {f"short_{kind}" for kind in kinds} <= set(render._templates())
