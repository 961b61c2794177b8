"""Searches: closed forms, brute force, and a function whose important setting is known."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import result_folder

from vitbench.analysis import results
from vitbench.analysis.search import numbers as search


def test_best_of_k_is_the_mean_over_all_draws() -> None:
    """Brute force: the minimum over every sequence of k draws with replacement, ties included."""
    losses = [0.9, 0.3, 0.3, 0.7]
    found = search.best_of_k(losses).set_index("k")["expected"]
    for k in (1, 2, 3, 4):
        draws = [min(draw) for draw in itertools.product(losses, repeat=k)]
        assert found[k] == pytest.approx(np.mean(draws))


def test_best_so_far_never_rises_and_counts_all_epochs() -> None:
    """Epochs of suggestions that were stopped or diverged are spent as well."""
    found = pd.DataFrame(
        {"epochs": [9, 1, 9], "loss": [0.5, 0.9, 0.4], "status": ["finished", "stopped", "x"]}
    )
    curve = search.best_so_far(found)
    assert list(curve["epochs_spent"]) == [9, 10, 19]
    assert list(curve["best"]) == [0.5, 0.5, 0.4]


def _searched(n: int) -> pd.DataFrame:
    """Losses that depend strongly on lr, weakly on depth, not at all on heads."""
    rng = np.random.default_rng(1)
    lr, depth = 10 ** rng.uniform(-5, -1, n), rng.integers(1, 5, n)
    loss = np.abs(np.log10(lr) + 3) + 0.15 * depth
    loss[0] = 1e6
    return pd.DataFrame(
        {"lr": lr, "depth": depth, "heads": rng.integers(1, 4, n)}
        | {"loss": loss, "status": "finished", "epochs": 1}
    )


def test_importance_finds_the_setting_that_matters_despite_one_huge_loss() -> None:
    """The order of the shares, and intervals that hold them; the outlier is clipped."""
    names = ["lr", "depth", "heads"]
    found = search.importance(_searched(60), names, repeats=6, trees=16).set_index("setting")
    assert found["share"].idxmax() == "lr" and found.loc["lr", "share"] > 0.7
    assert found["share"].idxmin() == "heads"
    assert (found["low"] <= found["high"]).all() and found.loc["lr", "low"] > 0.5


def test_few_suggestions_show_no_importance() -> None:
    """A forest on a handful of points is noise."""
    assert search.importance(_searched(19), ["lr", "depth"]).empty


def test_grid_anova_is_the_two_way_table_by_hand(tmp_path: Path) -> None:
    """loss = 2a + b + ab on a balanced 2 x 2 grid coded -1, 1, and seeds of known variance."""
    rows = [
        {"lr": a, "width": b, "seed": s, "status": "finished", "initial_val_loss": 99.0}
        | {"val_loss": 10 + 2 * a + b + a * b + 0.5 * s}
        for a, b, s in itertools.product((-1, 1), (-1, 1), (-1, 1))
    ]
    found = search.grid_anova(pd.DataFrame(rows), ["lr", "width"]).set_index("effect")["share"]
    total = 4 + 1 + 1 + 0.25
    assert found["lr"] == pytest.approx(4 / total)
    assert found["width"] == pytest.approx(1 / total)
    assert found["lr x width"] == pytest.approx(1 / total)
    assert found["seeds"] == pytest.approx(0.25 / total)
    assert search.grid_anova(pd.DataFrame(rows[:-1]), ["lr", "width"]).empty


def test_grid_anova_of_three_settings_sums_to_one() -> None:
    """Every share is at least zero and nothing is counted twice."""
    rng = np.random.default_rng(0)
    rows = [
        {"lr": a, "width": b, "depth": c, "seed": s, "status": "finished"}
        | {"initial_val_loss": 99.0, "val_loss": rng.normal()}
        for a, b, c, s in itertools.product(range(3), range(2), range(4), range(3))
    ]
    found = search.grid_anova(pd.DataFrame(rows), ["lr", "width", "depth"])
    assert found["share"].sum() == pytest.approx(1) and (found["share"] >= 0).all()
    assert len(found) == 3 + 3 + 1 + 1


def test_rungs_are_ashas_and_tau_is_of_trials_that_finished(tmp_path: Path) -> None:
    """Losses that keep their order have tau 1; reversed by the end, -1."""
    made = results.load(result_folder.make(tmp_path / "made"))
    assert search.rungs(made) == [1, 2]
    plan = {"scheduler": "asha", "grace_epochs": 1, "reduction_factor": 3}
    made.sweep["search"].update(plan)
    made.sweep["train"]["epochs"] = 10
    assert search.rungs(made) == [1, 3, 9]
    found = search.rung_correlation(made).set_index("epoch")
    assert found.loc[1, "tau"] == pytest.approx(1) and found.loc[1, "trials"] == 24
    flipped = made.epochs.assign(val_loss=-made.epochs["val_loss"])
    turned = results.Results(made.folder, made.trials, flipped, made.sweep, made.environment)
    assert search.rung_correlation(turned)["tau"].iloc[0] == pytest.approx(-1)
    assert math.isnan(found.loc[9, "tau"])


def test_a_suggestion_is_its_best_arm_over_mean_seeds(tmp_path: Path) -> None:
    """Diverged models stand at the loss before training; the best arm counts."""
    made = results.load(result_folder.make(tmp_path / "made"))
    made.trials["stack_id"] = "one"
    made.sweep["search"].update({"inner": {"lr": [1], "seed": [0]}, "space": {"depth": [1]}})
    found = search.suggestions(made)
    best = made.trials.query("lr == 0.01")["best_val_loss"].mean()
    assert len(found) == 1 and found["loss"].iloc[0] == pytest.approx(best)
    assert found["epochs"].iloc[0] == 90
