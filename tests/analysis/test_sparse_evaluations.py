"""Results of sweeps that are not evaluated after each epoch: no gap is read as a loss."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import result_folder

from vitbench.analysis import results, summary
from vitbench.analysis.figure_spec import supported
from vitbench.analysis.figures import FIGURES
from vitbench.analysis.learning_rate.figures import curves_data
from vitbench.analysis.report import report
from vitbench.records.labels import entropy, label_row
from vitbench.records.types import LabelScore, Status, TrialOutcome

GRID = result_folder.GRID.replace("epochs: 3", "epochs: 5, evaluate_every: 2")
SEARCH = """
name: made
dataset: {name: digits, image_size: 8}
train: {epochs: 5, evaluate_every: log, train_images: 300}
search: {method: random, space: {lr: [0.0001, 0.001, 0.01]}}
"""


def test_curves_hold_what_was_measured(tmp_path: Path) -> None:
    """Training loss of all epochs, test loss of the evaluated, also where a rate diverged."""
    found = results.load(result_folder.make(tmp_path, GRID))
    curves = curves_data(found)
    assert curves is not None and curves["mean"].notna().all()
    for lr, part in curves.groupby("lr"):
        of = {split: list(rows["epoch"]) for split, rows in part.groupby("split")}
        # Where all seeds diverged their loss is that before training, at every epoch.
        judged = [2, 4, 5] if lr < 1 else [1, 2, 3, 4, 5]
        assert of == {"train": [1, 2, 3, 4, 5], "val": judged, "test": judged}
    assert summary.as_json(found)["findings"]
    assert set(found.trials["evaluate_every"]) == {"2"}
    page = report.draw_and_write(tmp_path)[-1].read_text()
    assert not re.search(r"\bnan\b", page.split("</svg>")[0])


@pytest.mark.parametrize("last", [1, 2, 3, 4, 5])
def test_a_sweep_that_ended_between_evaluations_is_described(tmp_path: Path, last: int) -> None:
    """Every figure that it supports says the epoch at which losses were measured."""
    result_folder.make(tmp_path, GRID.replace(", 1.0]", "]"), until=2)
    record = tmp_path / "ledger.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    kept = [
        line
        for line in lines
        if line["kind"] not in ("epoch", "outcome") or line.get("epoch", 9) <= last
    ]
    record.write_text("".join(json.dumps(line) + "\n" for line in kept))
    os.utime(record, (2**31, 2**31))  # newer than the tables
    found = results.load(tmp_path)
    assert found.partial
    told = {spec.name: spec.alt(data) for spec, data in supported(FIGURES, found)}
    assert not [text for text in told.values() if re.search(r"\bnan\b", text)]
    evaluated = max(epoch for epoch in (1, 2, 4, 5) if epoch <= last)
    if last > 1:
        assert f"epoch {evaluated}" in told["learning_curves"]


def test_curves_of_a_search_have_no_gaps(tmp_path: Path) -> None:
    """A line from evaluation to evaluation: 1, 2, 4 and the last."""
    from vitbench.config import load_sweep
    from vitbench.plan.trials import trial_of

    (tmp_path / "s.yaml").write_text(SEARCH)
    sweep = load_sweep(tmp_path / "s.yaml")
    trials = [trial_of(sweep, {"lr": lr}) for lr in (0.0001, 0.001, 0.01)]
    found = results.load(result_folder.make(tmp_path / "r", SEARCH, trials=trials))
    curves = curves_data(found)
    assert curves is not None
    for _, part in curves.groupby("trial_id"):
        assert list(part["epoch"]) == [1, 2, 4, 5] and part["val_loss"].notna().all()


def test_a_label_learned_between_evaluations() -> None:
    """An evaluation counts for the epochs since the one before; two in a row are two of them."""
    trial = TrialOutcome(trial_id="a", status=Status.FINISHED, label="x")
    counts = {f"{split}_{what}": 10 for split in ("train", "val", "test") for what in ("images",)}
    halves = {f"{split}_positives": 5 for split in ("train", "val", "test")}
    score = LabelScore(label="x", **counts, **halves, test_bce=0.5, test_accuracy=0.8)
    constant = entropy(0.5)
    curve = [(2, 0.9 * constant), (4, 0.5 * constant), (5, 0.4 * constant)]
    row = label_row(trial, score, curve)
    assert row.alc == pytest.approx((2 * 0.1 + 2 * 0.5 + 1 * 0.6) / 5)
    assert (row.reached, row.epochs_to_target) == (True, 4)
