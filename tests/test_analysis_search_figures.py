"""Every figure redraws from its own CSV; a search's report has its sections."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import result_folder

from vitbench.analysis import (
    alt_text,
    curves,
    figures,
    lr_figures,
    report,
    results,
    search_figures,
    search_maps,
    style,
)
from vitbench.config import Dataset, Model, Train
from vitbench.plan import TrialConfig

SEARCH = """
name: searched
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 9, batch_size: 64, train_images: 300, val_images: 100, test_images: 50}
search:
  method: random
  trials: 24
  scheduler: asha
  space: {lr: {low: 0.0001, high: 0.1, log: true}, depth: [1, 2, 3]}
"""
TWO_WAY = result_folder.GRID.replace("seed:", "depth: [1, 2], seed:")
DRAW = {
    "learning_curves": search_figures.draw_curves,
    "best_so_far": search_figures.draw_best_so_far,
    "search_slices": search_figures.draw_slices,
    "importance": search_figures.draw_importance,
    "interactions": search_maps.draw_interactions,
    "parallel_coordinates": search_maps.draw_parallel,
    "best_of_k": search_figures.draw_best_of_k,
    "rung_correlation": search_figures.draw_rungs,
}


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


def test_every_figure_of_a_search_redraws_from_its_own_csv(searched: Path, tmp_path: Path) -> None:
    """What a figure shows is in the CSV beside it, to the last pixel, and it has its words."""
    there = {path.stem for path in (searched / "figures").glob("*.png")}
    assert there == set(DRAW)
    subtitle = results.load(searched).subtitle
    for name, draw in DRAW.items():
        kept = pd.read_csv(searched / "figures" / f"{name}.csv")
        title = f"{alt_text.heading(name)} ({subtitle})"
        again = style.save(draw(kept, title), kept, tmp_path, name)[0]
        assert again.read_bytes() == (searched / "figures" / f"{name}.png").read_bytes(), name
        assert len(alt_text.describe(name, kept)) > len(alt_text.heading(name)) + 20


def test_every_figure_of_a_grid_redraws_from_its_own_csv(tmp_path: Path) -> None:
    """The same for grids, with a second setting, so that a heat map and shares are drawn."""
    folder = result_folder.make(tmp_path / "grid", TWO_WAY)
    written = [path for path in figures.draw_all(folder) if path.suffix == ".csv"]
    found = results.load(folder)
    draw = {
        "learning_curves": (curves.draw_learning_curves, "Learning curves by learning rate"),
        "loss_by_lr": (curves.draw_loss_by_lr, "Loss against learning rate"),
        "lr_sensitivity": (lr_figures.draw_sensitivity, "Sensitivity to the learning rate"),
        "heat_lr_depth": (lr_figures.draw_heat, "Loss by learning rate and depth"),
        "importance": (search_figures.draw_importance, "Importance of the settings"),
    }
    assert {path.stem for path in written} == set(draw)
    for path in written:
        maker, title = draw[path.stem]
        kept = pd.read_csv(path)
        again = style.save(maker(kept, f"{title} ({found.subtitle})"), kept, tmp_path, path.stem)
        assert again[0].read_bytes() == path.with_suffix(".png").read_bytes(), path.stem


def test_the_report_of_a_search_says_when_its_best_came(searched: Path) -> None:
    """Best so far, rungs and slices are on the page; the learning-rate section is not."""
    text = (searched / report.NAME).read_text(encoding="utf-8")
    assert "came with suggestion" in text and "Kendall" in text and "stopped early by asha" in text
    assert "lr 0.0001 to 0.1 (log)" in text
    assert 'id="search"' in text and 'id="lr"' not in text
    importance = pd.read_csv(searched / "figures" / "importance.csv")
    assert importance["setting"].iloc[0] == "lr"
