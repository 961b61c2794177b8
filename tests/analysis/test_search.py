"""Searches: closed forms, brute force, and a function whose important setting is known."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import result_folder
from sklearn.tree import DecisionTreeRegressor

from vitbench.analysis import results
from vitbench.analysis.findings.render import sentence
from vitbench.analysis.search import findings, forest
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
    made = _searched(60)
    table = search.importance(made, names).set_index("setting")
    assert table["share"].idxmax() == "lr" and table.loc["lr", "share"] > 0.7
    assert table["share"].idxmin() == "heads"
    ends = search.share_intervals(made, names, repeats=6).set_index("setting")
    assert (ends["low"] <= ends["high"]).all() and ends.loc["lr", "low"] > 0.5
    told = findings.important(table.reset_index())
    assert told[0].asserts and told[0].arms == ("lr",)
    assert "heads" in told[-1].arms and not told[-1].asserts
    assert "Learning rate matters in this space" in sentence(told[0])
    assert "heads" in sentence(told[-1]) and "not told from noise" in sentence(told[-1])


def test_noise_gives_a_large_share_and_no_claim() -> None:
    """A forest on losses that no setting moves: the share is large, p and R^2 say what it is."""
    rng = np.random.default_rng(4)
    made = _searched(24).assign(loss=rng.normal(size=24))
    table = search.importance(made, ["lr", "depth"])
    assert table["share"].max() > 0.4
    assert (table["p_adjusted"] > 0.05).all() and (table["p"] <= table["p_adjusted"]).all()
    assert table["r2"].iloc[0] < 0.1
    assert not any(finding.asserts for finding in findings.important(table))


def test_forest_shares_are_those_of_another_implementation() -> None:
    """Main effects of 400 points against optuna's fANOVA, and against the exact variances.

    f = 3 a + b on three levels each: shares 9/10 and 1/10.
    """
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, 400), rng.integers(0, 3, 400)
    loss = 3.0 * a + b
    levels = np.stack([forest.levels(pd.Series(values)) for values in (a, b)], axis=1)
    drawn = rng.integers(0, 400, (16, 400))
    shares = forest.shares(forest.grow(levels, np.tile(loss, (16, 1)), drawn, rng)).mean(axis=0)
    assert shares == pytest.approx([0.9, 0.1], abs=0.01)
    study = optuna.create_study()
    space = {name: optuna.distributions.FloatDistribution(-0.5, 2.5) for name in "ab"}
    for row in zip(a, b, loss, strict=True):
        params = {"a": float(row[0]), "b": float(row[1])}
        study.add_trial(
            optuna.create_trial(params=params, distributions=space, value=float(row[2]))
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=16, seed=0)
    other = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    assert shares == pytest.approx([other["a"], other["b"]], abs=0.02)


def test_trees_are_those_of_scikit_learn() -> None:
    """Grown level by level, each tree splits what it is fitted to as scikit-learn's does.

    Where two settings split it alike either may be taken, so suggestions not seen may differ.
    """
    rng = np.random.default_rng(2)
    levels = np.stack([forest.levels(pd.Series(rng.random(60))) for _ in range(3)], axis=1)
    losses = levels[:, 0] + 0.3 * rng.normal(size=(5, 60))
    drawn = rng.integers(0, 60, (5, 60))
    grown = forest.grow(levels, losses, drawn, rng)
    for tree in range(5):
        weight = np.bincount(drawn[tree], minlength=60).astype(float)
        other = DecisionTreeRegressor(min_samples_leaf=2, random_state=0)
        other.fit(levels, losses[tree], sample_weight=weight)
        found = forest.predict(grown, np.full(60, tree), levels)
        seen = weight > 0
        assert found[seen] == pytest.approx(other.predict(levels)[seen])
        assert (grown.left_out_TN[tree] == ~seen).all()
    assert forest.rises(grown, levels, losses, rng).mean(axis=0).argmax() == 0


def test_levels_keep_text_and_missing_values_apart() -> None:
    """`label: null` is a level of its own, numbers are in their order."""
    assert forest.levels(pd.Series([0.1, 10.0, 1.0])).tolist() == [1 / 6, 5 / 6, 3 / 6]
    text = forest.levels(pd.Series(["7", None, "3", None], dtype="string"))
    assert len(set(text)) == 3 and text[1] == text[3]


@pytest.mark.parametrize(("n", "mean"), [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (10, 1.53875)])
def test_luck_of_the_lowest_of_n(n: int, mean: float) -> None:
    """Closed form for two; the published table (Teichroew 1956) for ten."""
    assert search.lowest_of(n) == pytest.approx(-mean, abs=1e-5)


def test_few_suggestions_show_no_importance() -> None:
    """A forest on a handful of points is noise."""
    assert search.importance(_searched(19), ["lr", "depth"]).empty


def test_grid_anova_is_the_two_way_table_by_hand() -> None:
    """loss = 2a + b + ab on a balanced 2 x 2 grid coded -1, 1, seeds that shift all cells alike.

    SS: 4, 1, 1 and 0.25 times 8 trials; a shift that all cells share is no noise, so MS_e = 0.
    """
    rows = [
        {"lr": a, "width": b, "seed": s, "status": "finished", "initial_val_loss": 99.0}
        | {"val_loss": 10 + 2 * a + b + a * b + 0.5 * s}
        for a, b, s in itertools.product((-1, 1), (-1, 1), (-1, 1))
    ]
    table = search.grid_anova(pd.DataFrame(rows), ["lr", "width"]).set_index("effect")["share"]
    total = 4 + 1 + 1 + 0.25
    assert table["lr"] == pytest.approx(4 / total)
    assert table["width"] == pytest.approx(1 / total)
    assert table["lr x width"] == pytest.approx(1 / total)
    assert table["seeds"] == pytest.approx(0.25 / total)
    assert search.grid_anova(pd.DataFrame(rows[:-1]), ["lr", "width"]).empty
    one_seed = pd.DataFrame([row for row in rows if row["seed"] == 1])
    assert search.grid_anova(one_seed, ["lr", "width"]).empty


def test_omega_squared_takes_off_the_noise_by_hand() -> None:
    """One setting, two levels, two seeds: cells (0, 4) and (6, 6).

    Grand mean 4; SS_lr = 2 (4 + 4) = 16, SS_seed = 2 (1 + 1) = 4, SS_total = 16 + 0 + 4 + 4 = 24,
    SS_e = 4 with one degree of freedom: omega2 = (16 - 4) / (24 + 4).
    """
    rows = [
        {"lr": lr, "seed": seed, "status": "finished", "initial_val_loss": 99.0, "val_loss": loss}
        for lr, seed, loss in ((1, 0, 0.0), (1, 1, 4.0), (2, 0, 6.0), (2, 1, 6.0))
    ]
    table = search.grid_anova(pd.DataFrame(rows), ["lr"]).set_index("effect")["share"]
    assert table["lr"] == pytest.approx(12 / 28) and table["seeds"] == pytest.approx(16 / 28)


def test_grid_anova_of_pure_noise_gives_settings_nothing() -> None:
    """Plain shares of 24 cells and 3 seeds add up to a third of pure noise; omega squared to none.

    Each effect is unbiased before it is cut at zero, so its mean over grids is near zero.
    """
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        [
            {"lr": a, "width": b, "depth": c, "seed": s, "status": "finished"}
            | {"initial_val_loss": 99.0}
            for a, b, c, s in itertools.product(range(3), range(2), range(4), range(3))
        ]
    )
    settings = []
    for _ in range(20):
        table = search.grid_anova(
            rows.assign(val_loss=rng.normal(size=72)), ["lr", "width", "depth"]
        )
        assert len(table) == 3 + 3 + 1 + 1
        assert table["share"].sum() == pytest.approx(1) and (table["share"] >= 0).all()
        settings.append(table.set_index("effect")["share"][["lr", "width", "depth"]].max())
    assert np.mean(settings) < 0.04


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


def test_a_suggestion_of_several_labels_is_the_mean_of_their_bests(tmp_path: Path) -> None:
    """The easiest label does not stand for the others."""
    made = results.load(result_folder.make(tmp_path / "made"))
    made.trials["stack_id"] = "one"
    made.trials["label"] = ["even" if seed % 2 else "odd" for seed in made.trials["seed"]]
    inner = {"lr": [1], "label": ["even", "odd"], "seed": [0]}
    made.sweep["search"].update({"inner": inner, "space": {"depth": [1]}})
    found = search.suggestions(made)
    lowest = [
        min(arm["best_val_loss"].mean() for _, arm in part.groupby("lr"))
        for _, part in made.trials.query("status == 'finished'").groupby("label")
    ]
    assert lowest[0] != lowest[1]
    assert found["loss"].iloc[0] == pytest.approx(sum(lowest) / 2)
