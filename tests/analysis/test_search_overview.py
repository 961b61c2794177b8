"""Parallel coordinates and losses by pairs of settings: the numbers behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import result_folder

from vitbench.analysis import results
from vitbench.analysis.search import overview as search_maps
from vitbench.config import Dataset, Model, Train
from vitbench.plan import TrialConfig

SEARCH = """
name: searched
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 3, batch_size: 64, train_images: 300, val_images: 100, test_images: 50}
search:
  method: random
  suggestions: 40
  space:
    lr: {low: 0.0001, high: 0.1, log: true}
    depth: [1, 2]
    optimizer: [radam, sgd]
    heads: [1, 2]
"""


def trial(lr: float, depth: int, optimizer: str, heads: int) -> TrialConfig:
    return TrialConfig(
        dataset=Dataset(name="digits", image_size=8),
        model=Model(patch_grid=2, depth=depth, heads=heads, width=8, mlp=8),
        train=Train.model_validate({"epochs": 3, "lr": lr, "optimizer": optimizer}),
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> results.Results:
    """Depth and optimizer act together alone: each is worthless without the other."""
    rng = np.random.default_rng(3)
    rates = 10 ** rng.uniform(-4, -1, size=40)
    trials = [trial(float(lr), 1 + n % 2, ("radam", "sgd")[n // 2 % 2], 1 + n // 4 % 2)
              for n, lr in enumerate(rates)]  # fmt: skip

    def loss(one: TrialConfig) -> float:
        together = (one.model.depth == 2) == (one.train.optimizer == "sgd")
        return 0.5 if together else 1.5

    folder = tmp_path_factory.mktemp("maps") / "made"
    return results.load(result_folder.make(folder, SEARCH, loss=loss, trials=trials))


def test_cells_are_means_over_their_suggestions(found: results.Results) -> None:
    """An interaction that neither setting shows alone is there in the cells of the pair."""
    data = search_maps.interactions_data(found)
    assert data is not None
    pairs = {frozenset(pair) for pair in zip(data["x"], data["y"], strict=True)}
    assert len(pairs) == 6
    cells = data[[{a, b} == {"depth", "optimizer"} for a, b in zip(data.x, data.y, strict=True)]]
    assert sorted(cells["count"]) == [10, 10, 10, 10]
    low, high = 0.5 + 1.8 * 0.3**3, 1.5 + 0.8 * 0.3**3  # the last epoch of result_folder's curves
    for cell in cells.to_dict("records"):
        labels = {cell["x_label"], cell["y_label"]}
        together = labels in ({"2", "sgd"}, {"1", "radam"})
        assert cell["loss"] == pytest.approx(low if together else high)


def test_bins_of_a_range_hold_every_suggestion(found: results.Results) -> None:
    """The learning rate is cut in its logarithm, and no suggestion is lost at an edge."""
    data = search_maps.interactions_data(found)
    assert data is not None
    pair = data[(data["x"] == "lr") | (data["y"] == "lr")]
    assert all(count == 40 for count in pair.groupby(["x", "y"])["count"].sum())
    side = "x" if (data["x"] == "lr").any() else "y"
    bins = pair[pair[side] == "lr"].drop_duplicates(f"{side}_bin").sort_values(f"{side}_bin")
    ends = [tuple(map(float, text.split(" to "))) for text in bins[f"{side}_label"]]
    rates = found.trials["lr"]
    assert ends[0][0] == pytest.approx(rates.min(), rel=0.05)
    assert ends[-1][1] == pytest.approx(rates.max(), rel=0.05)
    ratios = [high / low for low, high in ends]
    assert max(ratios) < 1.2 * min(ratios)


def test_few_suggestions_have_no_cells(tmp_path: Path) -> None:
    """Eleven suggestions in two dozen cells would be a picture of noise."""
    trials = [trial(0.001 * n, 1 + n % 2, "sgd", 1) for n in range(1, 12)]
    made = result_folder.make(tmp_path / "few", SEARCH, trials=trials)
    assert search_maps.interactions_data(results.load(made)) is None
    lines = search_maps.parallel_data(results.load(made))
    assert lines is not None and len(lines) == 11


def test_lines_stand_at_their_values(found: results.Results) -> None:
    """Heights on an axis follow the values; ties are spread, the best one lowest, around a tick."""
    data = search_maps.parallel_data(found)
    assert data is not None
    assert data["loss"].is_monotonic_increasing and len(data) == 40
    heights, ticks = search_maps._heights(data["lr"])
    order = data["lr"].rank().to_numpy()
    assert (np.argsort(heights) == np.argsort(order)).all()
    assert heights.min() == 0 and heights.max() == 1
    assert float(ticks[0][1]) == pytest.approx(data["lr"].min(), rel=0.05)
    heights, ticks = search_maps._heights(data["optimizer"])
    assert [text for _, text in ticks] == ["radam", "sgd"]
    sgd = heights[(data["optimizer"] == "sgd").to_numpy()]
    assert sgd.mean() == pytest.approx(1) and (np.diff(sgd) > 0).all()


def test_a_setting_without_a_value_is_a_level_of_its_own() -> None:
    """`label: null` trains all classes: it must neither vanish nor be drawn at a number."""
    values = pd.Series(["3", None, "7", None], dtype="string")
    heights, ticks = search_maps._heights(values)
    assert [text for _, text in ticks] == ["3", "7", "none"]
    assert heights[[1, 3]].mean() == pytest.approx(1)
