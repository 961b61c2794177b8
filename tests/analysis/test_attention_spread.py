"""Spread of attention against loss, and where labels look: what is asserted, and on what units."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import result_folder
from scipy import stats

from vitbench.analysis import figures, results, style
from vitbench.analysis.attention import by_rate, rate_maps
from vitbench.analysis.attention.figures import draw_by_rate
from vitbench.analysis.attention.findings import (
    associations,
    intraclass,
    lifts,
    limits,
    looks,
    spread_data,
    within_rho,
)
from vitbench.analysis.findings.render import sentence

ROOT = Path(__file__).parents[2]


def models(units: int, slope: float, seeds: int = 6, within: float = 0.01) -> pd.DataFrame:
    """Models whose spread differs between units; their loss follows the units' by `slope`."""
    rng = np.random.default_rng(0)
    width = np.repeat(np.linspace(10, 50, units), seeds)
    return pd.DataFrame(
        {
            "group": np.repeat([f"label {k}" for k in range(units)], seeds),
            "unit": "label",
            "lr": 0.001,
            "effective_patches": width + rng.normal(0, within, len(width)),
            "patches": 64,
            "train_loss": 0.5 + slope * width + rng.normal(0, within, len(width)),
            "nce": rng.uniform(0, 1, len(width)),
            "excess": np.nan,
        }
    )


@pytest.mark.parametrize(("slope", "direction"), [(0.02, "higher"), (-0.02, "lower")])
def test_many_units_can_carry_a_direction(slope: float, direction: str) -> None:
    """Eight labels in order: asserted for the loss that follows, not for the one that is noise."""
    first, second = associations(models(8, slope))
    assert first.asserts and first.effect == pytest.approx(np.sign(slope)) and first.n == 8
    assert f"goes with a {direction} training loss" in sentence(first)
    assert not second.asserts and "no direction can be told" in sentence(second)


def test_losses_without_noise_have_no_floor() -> None:
    """No label is wrong: the loss is not called one above a noise floor."""
    clean = models(8, 0.02).assign(excess=lambda data: data["nce"])
    assert "noise floor" not in sentence(associations(clean)[1])
    noisy = clean.assign(excess=clean["nce"] - 0.1)
    assert "above the noise floor" in sentence(associations(noisy)[1])


def test_three_labels_carry_none_however_many_models() -> None:
    """Three labels of 50 models each in perfect order are three units."""
    first, _ = associations(models(3, 0.02, seeds=50))
    assert not first.asserts and first.effect is None
    assert "3 labels are the units" in sentence(first) and "fewer than 5" in sentence(first)


def test_p_is_that_of_permuted_units() -> None:
    """Five units in order: 2 of 120 orders are as extreme, twice that over two losses."""
    first, _ = associations(models(5, 0.02))
    assert first.p == pytest.approx(2 / 120)
    assert first.p_adjusted == pytest.approx(4 / 120)


def test_variance_between_units_by_hand() -> None:
    """ICC(1) of two groups of two, and the rank correlation within groups of three."""
    rows = pd.DataFrame({"group": list("aabb"), "x": [1.0, 3.0, 7.0, 9.0]})
    assert intraclass(rows, "x") == pytest.approx((36 - 2) / (36 + 2))
    alike = pd.DataFrame({"group": list("aaabbb"), "effective_patches": [1.0, 2, 3, 30, 20, 10],
                          "loss": [5.0, 6, 7, 3, 2, 1]})  # fmt: skip
    assert within_rho(alike, "loss") == pytest.approx(1.0)
    assert math.isnan(within_rho(alike.iloc[[0, 1, 3, 4]], "loss"))


def test_a_rate_that_drives_both_is_named() -> None:
    """Models of several learning rates: the association is not one at a given rate."""
    data = models(8, 0.02).assign(lr=np.repeat([0.001, 0.01], 24))
    assert all("learning rate differs" in sentence(one) for one in associations(data))
    same = associations(models(8, 0.02))
    assert not any("learning rate differs" in sentence(one) for one in same)


def test_spread_meets_the_loss_of_its_own_epoch(tmp_path: Path) -> None:
    """Maps are of the best weights, so the training loss is that of the best epoch."""
    folder = result_folder.make(tmp_path / "r")
    ledger = folder / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "outcome" and line["best_epoch"]:
            line["best_epoch"] = 2
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "trials.parquet").unlink()
    found = results.load(folder)
    (folder / "attention").mkdir()
    kept = found.trials[found.trials["status"] == "finished"]
    kept[["trial_id"]].assign(effective_patches=3.0, patches=4, images=8).to_csv(
        folder / "attention" / "spread.csv", index=False
    )
    data = spread_data(found)
    assert data is not None and len(data) == 24
    assert set(data["unit"]) == {"setting"} and data["group"].nunique() == 4
    for row in data.to_dict("records"):
        curve = found.epochs[found.epochs["trial_id"] == row["trial_id"]].set_index("epoch")
        assert row["train_loss"] == curve.loc[2, "train_loss"] != curve.loc[3, "train_loss"]


def looked(eyes: float, seeds: int = 6) -> pd.DataFrame:
    """Lifts of three labels; Eyeglasses looks at the eyes by `eyes` more."""
    rng = np.random.default_rng(1)
    rows = [
        {
            "label": label,
            "seed": seed,
            "eyes_lift": 1.2 + eyes * (label == "Eyeglasses") + rng.normal(0, 0.05),
            "mouth_lift": 1.4 + rng.normal(0, 0.05),
        }
        for label in ("Eyeglasses", "Smiling", "Wavy_Hair")
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def test_a_label_that_looks_elsewhere_is_told_from_the_others() -> None:
    """Eyes by Eyeglasses, not the mouth that all look at; the interval holds the truth."""
    told = looks(looked(1.0))
    first = next(f for f in told if f.arms == ("Eyeglasses",) and f.metric == "eyes_lift")
    assert first.asserts and first.low is not None and first.high is not None
    assert first.low < 1.0 < first.high
    assert "Eyeglasses put more attention on the eyes" in sentence(first)
    assert not any(finding.metric == "mouth_lift" for finding in told)


def test_all_labels_and_regions_are_corrected_together() -> None:
    """Lifts of pure noise in which one of six contrasts has one sign in all seeds: not claimed."""
    rng = np.random.default_rng(11)
    rows = pd.DataFrame(
        [
            {"label": label, "seed": seed}
            | {name: 1 + 0.1 * rng.normal() for name in ("eyes_lift", "mouth_lift")}
            for label in "ABC"
            for seed in range(6)
        ]
    )
    smallest = min(
        stats.permutation_test(
            (values[label] - values.drop(columns=label).mean(axis=1),),
            np.mean, permutation_type="samples", n_resamples=np.inf,
        ).pvalue
        for values in (rows.pivot(index="seed", columns="label", values=name)
                       for name in ("eyes_lift", "mouth_lift"))
        for label in "ABC"
    )  # fmt: skip
    assert smallest < 0.05
    assert not any(finding.asserts for finding in looks(rows))


def test_few_seeds_claim_nothing_of_where_labels_look() -> None:
    """Five seeds, however large the difference."""
    (only,) = looks(looked(5.0, seeds=5))
    assert not only.asserts and "no label is claimed to look elsewhere" in sentence(only)


def test_spread_by_learning_rate_is_a_figure_and_a_sentence(tmp_path: Path) -> None:
    """A dot per model, means by rate, redrawn from its CSV; nothing of one rate alone."""
    made = result_folder.make(tmp_path / "rates")
    trials = results.load(made).trials
    (made / "attention").mkdir()
    spread = trials[["trial_id"]].assign(patches=4, images=9)
    spread["effective_patches"] = (
        1.0 + trials["lr"].rank(method="dense") / 2 + 0.02 * trials["seed"]
    )
    spread.to_csv(made / "attention" / "spread.csv", index=False)
    data = by_rate.data(results.load(made))
    assert data is not None and len(data) == 30
    first = style.save(draw_by_rate(data, "t\nof"), data, tmp_path / "a", "attention_by_lr")
    again = figures.read(first[-1])
    second = style.save(draw_by_rate(again, "t\nof"), again, tmp_path / "b", "attention_by_lr")
    assert first[0].read_bytes() == second[0].read_bytes()
    (told,) = by_rate.findings(results.load(made))
    assert not told.asserts
    assert "1.55 at 0.0001, 2.05 at 0.001, 2.55 at 0.01, 3.05 at 0.1" in sentence(told)
    one = spread[trials["lr"] == 0.01]
    one.to_csv(made / "attention" / "spread.csv", index=False)
    assert by_rate.data(results.load(made)) is None


def test_maps_at_each_rate_are_of_models_that_differ_in_it_alone(tmp_path: Path) -> None:
    """The best seed at every rate that has weights; the drawing comes from the CSV alone."""
    made = result_folder.make(tmp_path / "rates")
    opened = results.load(made)
    trials = opened.trials[opened.trials["lr"] < 1]  # at 1 nothing is kept
    chosen = rate_maps.trials_of_rates(opened, trials)
    assert [*chosen.values()] == [0.0001, 0.001, 0.01, 0.1]
    best = trials.loc[trials["best_val_loss"].astype(float).idxmin()]
    of_them = trials[trials["trial_id"].isin(chosen)]
    assert set(of_them["seed"]) == {best["seed"]} and best["trial_id"] in chosen
    assert rate_maps.trials_of_rates(opened, trials[trials["lr"] == 0.01]) == {}

    (made / "attention").mkdir()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    maps = {lr: np.full((4, 2, 2), 1.0) for lr in chosen.values()}
    maps[0.1][:, 0, 1] = 3.0  # the strongest patch, upper right
    rate_maps.write(made / "attention", images, maps)
    data = rate_maps.data(opened)
    assert data is not None
    axes = rate_maps.draw(data, "t\nof").axes
    shown = axes[3 * 5 + 4].images[0].get_array()  # the last image at the highest rate
    assert shown is not None and shown.tolist() == [[1.0, 3.0], [1.0, 1.0]]
    left = axes[0].images[0].get_array()
    np.testing.assert_allclose(np.asarray(left), images[0].mean(axis=0), atol=0.5)
    assert "1 at 0.01, 3 at 0.1" in sentence(rate_maps.describe(data))
    assert figures.by_name(opened, "attention_maps_by_lr").axes


def test_a_model_without_attention_does_not_take_the_place_of_one_that_has_it() -> None:
    """A CNN with the lower loss at most labels: spread and regions are of the ViT's, all seeds."""
    opened = results.load(ROOT / "analysis" / "data" / "label_attention")
    best = opened.trials.groupby(["label", "model"])["best_val_loss"].mean().unstack()
    assert (best["cnn"] < best["vit"]).sum() > 4  # else nothing is shown here
    vits = set(opened.trials.loc[opened.trials["model"] == "vit", "trial_id"])
    spread = spread_data(opened)
    assert spread is not None and set(spread["trial_id"]) == vits and len(vits) == 48
    assert (lifts(opened).groupby("label").size() == 6).all()
    assert not any(limit.kind == "limit_without_map" for limit in limits(opened))
