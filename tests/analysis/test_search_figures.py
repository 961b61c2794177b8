"""The report of a search has its sections."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import result_folder

from vitbench.analysis.report import report
from vitbench.config import Dataset, Model, Train
from vitbench.plan import TrialConfig

SEARCH = """
name: searched
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 9, batch_size: 64, train_images: 300, val_images: 100, test_images: 50}
search:
  method: random
  suggestions: 24
  scheduler: asha
  space: {lr: {low: 0.0001, high: 0.1, log: true}, depth: [1, 2, 3]}
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    trials = [
        TrialConfig(
            dataset=Dataset(name="digits", image_size=8),
            model=Model(patch_grid=2, depth=int(rng.integers(1, 4)), heads=2, width=8, mlp=8),
            train=Train(epochs=9, lr=float(10 ** rng.uniform(-4, -1)), train_images=300),
        )
        for _ in range(24)
    ]

    def loss(trial: TrialConfig) -> float:
        return 0.2 + abs(math.log10(trial.train.lr) + 2) + 0.1 * trial.model.depth

    folder = tmp_path_factory.mktemp("search") / "made"
    result_folder.make(folder, SEARCH, loss=loss, trials=trials)
    report.draw_and_write(folder)
    return folder


def test_the_report_of_a_search_says_when_its_best_came(searched: Path) -> None:
    """Best so far, rungs and slices are on the page; the learning-rate section is not."""
    text = (searched / report.NAME).read_text(encoding="utf-8")
    assert "came with suggestion" in text and "Kendall" in text and "stopped early by asha" in text
    assert "lr 0.0001 to 0.1 (log)" in text
    assert 'id="search"' in text and 'id="lr"' not in text
    importance = pd.read_csv(searched / "figures" / "importance.csv")
    assert importance["setting"].iloc[0] == "lr"
