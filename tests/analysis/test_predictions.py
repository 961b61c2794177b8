"""Intervals over seeds and images at once, and reading what models said of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vitbench.analysis.predictions import by_seed_and_image, predictions, two_way_interval
from vitbench.analysis.results import Results


def test_new_seeds_and_new_images_are_covered() -> None:
    """Seed and image effects of known size: at least 90 of 100 intervals hold the true mean."""
    rng = np.random.default_rng(0)
    held = 0
    for number in range(100):
        values = (
            1.0
            + 0.2 * rng.normal(size=(6, 1))
            + 0.5 * rng.normal(size=(1, 60))
            + 0.3 * rng.normal(size=(6, 60))
        )
        interval = two_way_interval(values, draws=300, seed=number)
        assert interval.low is not None and interval.high is not None
        held += interval.low < 1.0 < interval.high
    assert held >= 90


def test_images_alone_are_not_the_whole_spread() -> None:
    """Where seeds differ much the interval is wider than one over images."""
    rng = np.random.default_rng(1)
    images = rng.normal(size=(1, 500))
    calm = two_way_interval(images + np.zeros((6, 1)))
    torn = two_way_interval(images + 2.0 * rng.normal(size=(6, 1)))
    assert calm.half is not None and torn.half is not None and torn.half > 3 * calm.half


def test_one_seed_has_no_spread() -> None:
    """It is refused, not given an interval of width zero."""
    with pytest.raises(ValueError, match="1 seeds"):
        two_way_interval(np.zeros((1, 10)))


def test_the_last_epoch_is_read(tmp_path: Path) -> None:
    """Rows of models, columns of images; a folder without predictions has none."""
    (tmp_path / "predictions").mkdir()
    for trial, right in (("a", 1), ("b", 0)):
        table = pd.DataFrame(
            {
                "epoch": [1, 1, 2, 2],
                "test_index": [0, 1, 0, 1],
                "truth": [1, 1, 1, 1],
                "predicted": [0, 0, 1, right],
                "loss": [9.0, 9.0, 0.1, 0.2],
            }
        )
        table.to_parquet(tmp_path / "predictions" / f"{trial}.parquet")
    results = Results(tmp_path, pd.DataFrame(), pd.DataFrame(), {}, {})
    values = by_seed_and_image(results, ["a", "b"], "correct")
    assert values.loc["a"].tolist() == [1.0, 1.0] and values.loc["b"].tolist() == [1.0, 0.0]
    assert by_seed_and_image(results, ["a"], "loss").loc["a"].tolist() == [0.1, 0.2]
    assert predictions(results, "unknown").empty
