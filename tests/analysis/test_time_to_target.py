"""Time to a stated accuracy, on tables small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from vitbench.analysis.time_to_target import numbers as speed


def tables(arrivals: dict[tuple[float, int], int | None]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials and epochs in which (lr, seed) reaches 0.9 at the given epoch of 8, or never."""
    trials, epochs = [], []
    for number, ((lr, seed), arrival) in enumerate(arrivals.items()):
        name = f"t{number}"
        trials.append(
            {"trial_id": name, "lr": lr, "seed": seed, "stack_size": 2, "images_per_s": 10.0}
        )
        for epoch in range(1, 9):
            there = arrival is not None and epoch == arrival
            epochs.append(
                {
                    "trial_id": name,
                    "epoch": epoch,
                    "epoch_s": 3.0,
                    "val_accuracy": 0.95 if there else 0.5,
                }
            )
    return pd.DataFrame(trials), pd.DataFrame(epochs)


def test_first_arrival_counts_and_a_miss_is_infinite() -> None:
    """The epoch of the first arrival, with the trial's share of its stack's time."""
    trials, epochs = tables({(0.1, 0): 3, (0.1, 1): None, (0.01, 0): 6, (0.01, 1): 8})
    times = speed.time_to_target(trials, epochs, 0.9).set_index("trial_id")
    assert times["epochs"].tolist() == [3, math.inf, 6, 8]
    assert times["seconds"].tolist() == [3 * 3 / 2, math.inf, 6 * 3 / 2, 8 * 3 / 2]
    table = speed.by_arm(times.reset_index()).set_index("arm")
    # Two trials, one of which never arrives: so does their median.
    assert table.index.tolist() == ["lr 0.01", "lr 0.1"]
    assert table["epochs"].tolist() == [7, math.inf]
    assert table["reached"].tolist() == [2, 1]


def test_profile_is_the_share_within_a_factor_of_the_fastest() -> None:
    """rho and its area against the integral taken numerically from the definition."""
    trials, epochs = tables(
        {(0.1, 0): 2, (0.1, 1): 4, (0.1, 2): None, (0.01, 0): 4, (0.01, 1): 2, (0.01, 2): 8}
    )
    relative = speed.ratios(speed.time_to_target(trials, epochs, 0.9))
    found = speed.profile(relative)
    by_hand = {"lr 0.1": [1, 2, math.inf], "lr 0.01": [2, 1, 1]}
    grid = np.linspace(1, 4, 30_001)
    for arm, ratios in by_hand.items():
        rho = np.mean([[r <= tau for tau in grid] for r in ratios], axis=0)
        part = found[found["arm"] == arm]
        assert part["score"].iloc[0] == pytest.approx(np.trapezoid(rho, grid) / 3, abs=1e-3)
        at_2 = part[part["tau"] <= 2].iloc[-1]["share"]
        assert at_2 == pytest.approx(np.mean([r <= 2 for r in ratios]))
    assert found["arm"].iloc[0] == "lr 0.01"
    assert set(found["workloads"]) == {3}


def test_too_few_workloads_give_no_profile() -> None:
    """Two workloads or one arm make no profile: nothing would be behind it."""
    trials, epochs = tables({(0.1, 0): 2, (0.1, 1): 4, (0.01, 0): 4, (0.01, 1): 2})
    assert speed.profile(speed.ratios(speed.time_to_target(trials, epochs, 0.9))).empty
