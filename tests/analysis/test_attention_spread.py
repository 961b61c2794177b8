"""Spread of attention against loss: the correlation, its interval, and what is said of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from vitbench.analysis.attention.spread import caption, rank_correlation


def table(slope: float, count: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    width = rng.uniform(5, 60, count)
    return pd.DataFrame(
        {
            "group": np.where(np.arange(count) % 2, "A", "B"),
            "label": np.where(np.arange(count) % 2, "A", "B"),
            "effective_patches": width,
            "patches": 64,
            "train_loss": 0.5 + slope * width + rng.normal(0, 0.05, count),
            "nce": rng.uniform(0, 1, count),
        }
    )


def test_rank_correlation_is_of_ranks() -> None:
    """Spearman's rho from the definition, 1 - 6 sum d^2 / (n (n^2 - 1)), without ties."""
    x, y = pd.Series([1.0, 5.0, 2.0, 9.0, 4.0]), pd.Series([0.1, 0.3, 9.0, 8.0, 0.2])
    rank = [[1, 4, 2, 5, 3], [1, 3, 5, 4, 2]]
    by_hand = 1 - 6 * sum((a - b) ** 2 for a, b in zip(*rank, strict=True)) / (5 * 24)
    found = rank_correlation(x, y)
    assert found.rho == pytest.approx(by_hand)
    assert found.low is not None and found.high is not None
    assert -1 <= found.low <= found.rho <= found.high <= 1


def test_few_models_have_no_interval() -> None:
    """Four points could be put in any order by chance."""
    x = pd.Series([1.0, 2.0, 3.0, 4.0])
    found = rank_correlation(x, x)
    assert found.rho == pytest.approx(1.0)
    assert found.low is None


def test_the_interval_covers_no_correlation() -> None:
    """Independent values: the interval holds zero in nearly all of 60 draws."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        found = rank_correlation(pd.Series(rng.normal(size=20)), pd.Series(rng.normal(size=20)))
        assert found.low is not None and found.high is not None
        covered += found.low <= 0 <= found.high
    assert covered >= 50


@pytest.mark.parametrize(
    ("slope", "said"),
    [(0.02, "wider attention goes with a higher loss"),
     (-0.02, "wider attention goes with a lower loss")],
)  # fmt: skip
def test_the_caption_says_what_the_interval_says(slope: float, said: str) -> None:
    """The direction of the training loss, and none for noise; two labels are an anecdote."""
    text = caption(table(slope))
    assert f"training loss: {said}" in text
    assert "corrected for base rate: no direction can be told" in text
    assert "an anecdote" in text
