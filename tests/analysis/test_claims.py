"""Claims judged against verdicts that were worked out by hand."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import result_folder

from vitbench.analysis.findings import claims, power
from vitbench.analysis.findings.arms import by_arm
from vitbench.analysis.findings.claims import NOT_TESTED, REFUTED, SUPPORTED, UNDECIDED
from vitbench.analysis.findings.render import claim_sentence, claim_why, sentence
from vitbench.analysis.results import Results, load
from vitbench.config import TrialConfig, load_sweep
from vitbench.data.sets.faces import faces
from vitbench.records import environment

sys.path.append(str(Path(__file__).parents[1] / "calibration"))
import simulated

OFFSETS = np.array([0.00, 0.01, 0.02, 0.03, 0.04, 0.05])
TILT = np.array([0.001, -0.002, 0.002, 0.001, -0.001, 0.0])


def losses(*means: float, seeds: int = 6) -> Results:
    """Arms lr 1, 2, ... whose losses are the mean, a seed's offset and a tilt of the arm."""
    values = np.stack([m + OFFSETS + (k % 3) * TILT for k, m in enumerate(means)], axis=1)[:seeds]
    arms = [{"lr": float(k + 1)} for k in range(len(means))]
    return simulated.results(values, values, arms)


def judged(results: Results, *stated: dict[str, Any]) -> list[claims.Verdict]:
    written = [
        {"id": f"c{n}", "says": "so", "metric": "test_loss", **claim}
        for n, claim in enumerate(stated)
    ]
    return claims.judge(dataclasses.replace(results, sweep={**results.sweep, "claims": written}))


@pytest.mark.parametrize(
    ("claim", "verdict", "effect"),
    [
        ({"is": "higher", "of": {"lr": 2.0}, "than": {"lr": 1.0}}, SUPPORTED, 0.1),
        ({"is": "lower", "of": {"lr": 2.0}, "than": {"lr": 1.0}}, REFUTED, 0.1),
        ({"is": "lower", "of": {"lr": 1.0}, "than": {"lr": 2.0}}, SUPPORTED, -0.1),
        ({"is": "highest", "of": {"lr": 3.0}}, SUPPORTED, 0.2),
        ({"is": "highest", "of": {"lr": 2.0}}, REFUTED, -0.2),
        ({"is": "lowest", "of": {"lr": 1.0}}, SUPPORTED, -0.1),
        ({"is": "ordered", "of": [{"lr": 1.0}, {"lr": 2.0}, {"lr": 3.0}]}, SUPPORTED, 0.1),
        ({"is": "ordered", "of": [{"lr": 1.0}, {"lr": 3.0}, {"lr": 2.0}]}, REFUTED, -0.2),
        ({"is": "higher", "of": {"lr": 2.0}, "than": {"lr": 1.0}, "margin": 0.05}, SUPPORTED, 0.1),
        ({"is": "higher", "of": {"lr": 2.0}, "than": {"lr": 1.0}, "margin": 0.15}, REFUTED, 0.1),
        ({"is": "lower", "of": {"lr": 1.0}, "than": {"lr": 2.0}, "margin": 0.15}, REFUTED, -0.1),
    ],
)
def test_every_relation(claim: dict[str, Any], verdict: str, effect: float) -> None:
    """Arms of 0.5, 0.6 and 0.8 over six seeds, far apart: every flip but all or none is smaller."""
    (found,) = judged(losses(0.5, 0.6, 0.8), claim)
    assert found.verdict == verdict
    assert found.effect == pytest.approx(effect, abs=0.002)
    assert found.low is not None and found.high is not None
    assert found.low < effect < found.high
    assert found.p_adjusted == 2 / 2**6
    assert found.n == 6


def test_claims_of_one_family_are_corrected_together() -> None:
    """Claims of other families do not count; of the same family they raise p."""
    values = np.random.default_rng(3).normal(0.5, 0.02, size=(8, 6))
    results = simulated.results(values, values, [{"lr": float(k + 1)} for k in range(6)])
    stated = [
        {"is": "higher", "of": {"lr": k}, "than": {"lr": k + 1.0}} for k in (1.0, 3.0, 5.0)
    ]  # fmt: skip
    alone = [judged(results, claim)[0].p_adjusted or 0.0 for claim in stated]
    apart = judged(results, *({**claim, "family": f"f{n}"} for n, claim in enumerate(stated)))
    assert [verdict.p_adjusted for verdict in apart] == alone
    together = [verdict.p_adjusted or 0.0 for verdict in judged(results, *stated)]
    assert all(p >= q for p, q in zip(together, alone, strict=True))
    assert sum(together) > sum(alone) + 0.1


def test_nothing_is_decided_where_all_diverged() -> None:
    """Every model has the loss before training: neither supported nor refuted."""
    results = losses(0.5, 0.6)
    trials = results.trials.assign(status="diverged", test_loss=math.nan)
    claim = {"is": "higher", "of": {"lr": 2.0}, "than": {"lr": 1.0}}
    (found,) = judged(dataclasses.replace(results, trials=trials), claim)
    assert (found.verdict, found.effect, found.p_adjusted) == (UNDECIDED, 0.0, 1.0)


@pytest.mark.parametrize("seeds", [1, 5])
def test_fewer_than_six_seeds_decide_nothing(seeds: int) -> None:
    """Five seeds give 2 / 2^5 at best, one gives 1; how many would do is told."""
    claim = {"is": "higher", "of": {"lr": 2.0}, "than": {"lr": 1.0}}
    (found,) = judged(losses(0.5, 0.9, seeds=seeds), claim)
    assert (found.verdict, found.p_adjusted) == (UNDECIDED, 2 / 2**seeds)
    told = claim_sentence(found)
    assert "cannot give p < 0.05, 6 can" in told
    assert ("every seed is higher, but 5 seeds" in told) == (seeds == 5)


def test_units_of_another_metric_do_not_matter() -> None:
    """The same claims with accuracies in percent: p is that of shares."""
    results = losses(0.5, 0.501, 0.502)
    small = results.trials["test_loss"].astype(float)
    stated = (
        {"is": "higher", "of": {"lr": 2.0}, "than": {"lr": 1.0}},
        {"is": "higher", "of": {"lr": 3.0}, "than": {"lr": 1.0}, "metric": "test_accuracy"},
    )
    p = []
    for factor in (1, 100):
        trials = results.trials.assign(test_accuracy=factor * small)
        p.append(
            [v.p_adjusted for v in judged(dataclasses.replace(results, trials=trials), *stated)]
        )
    assert p[0] == p[1]


def crossed(effect_at: dict[str, float]) -> Results:
    arms = [{"lr": lr, "batch_size": b} for b in (16, 64) for lr in (1.0, 2.0)]
    means = [0.5 + (effect_at[str(arm["batch_size"])] if arm["lr"] == 2.0 else 0) for arm in arms]
    tilts = np.outer(TILT, [0, 1, 0, 1])
    values = OFFSETS[:, None] + np.array(means)[None, :] + tilts
    return simulated.results(values, values, arms)


def test_where_chooses_and_open_settings_are_averaged() -> None:
    """+0.1 at 16 and -0.3 at 64 are -0.1 on average."""
    claim = {"is": "higher", "of": {"lr": 2.0}, "than": {"lr": 1.0}}
    found = judged(
        crossed({"16": 0.1, "64": -0.3}),
        {**claim, "where": {"batch_size": 16}},
        {**claim, "where": {"batch_size": 64}},
        claim,
    )
    assert [v.verdict for v in found] == [SUPPORTED, REFUTED, REFUTED]
    assert [round(v.effect or 0, 2) for v in found] == [0.1, -0.3, -0.1]


def test_averages_over_unlike_settings_are_refused() -> None:
    """Without lr 2 at batch size 64 a mean over batch sizes would compare batch sizes."""
    results = crossed({"16": 0.1, "64": 0.1})
    gone = (results.trials["lr"] == 2.0) & (results.trials["batch_size"] == 64)
    results = dataclasses.replace(results, trials=results.trials[~gone])
    (found,) = judged(results, {"is": "higher", "of": {"lr": 2.0}, "than": {"lr": 1.0}})
    assert found.verdict == NOT_TESTED
    assert "not trained with the same other settings" in claim_why(found)


def test_missing_and_unfinished_arms_are_not_tested_and_diverged_ones_are() -> None:
    """A diverged arm has the loss before training; one that lacks a seed only stops its claims."""
    results = losses(0.5, 0.6, 0.8)
    trials = results.trials.copy()
    trials.loc[(trials["lr"] == 2.0) & (trials["seed"] == 3), "status"] = "running"
    diverged = trials["lr"] == 3.0
    trials.loc[diverged, ["status", "test_loss"]] = ["diverged", math.nan]
    found = judged(
        dataclasses.replace(results, trials=trials),
        {"is": "higher", "of": {"lr": 3.0}, "than": {"lr": 1.0}},
        {"is": "higher", "of": {"lr": 2.0}, "than": {"lr": 1.0}},
        {"is": "higher", "of": {"lr": 9.0}, "than": {"lr": 1.0}},
        {"is": "highest", "of": {"depth": 9}},
    )
    assert [v.verdict for v in found] == [SUPPORTED, NOT_TESTED, NOT_TESTED, NOT_TESTED]
    assert found[0].effect == pytest.approx(simulated.START - 0.525)
    assert [claim_why(v) for v in found[1:]] == [
        "Learning rate 2 lacks 1 of its seeds", "No trial has learning rate 9",
        "The sweep does not vary depth",
    ]  # fmt: skip


@pytest.mark.parametrize(("units", "verdict"), [(4, NOT_TESTED), (6, SUPPORTED)])
def test_associations_count_units(units: int, verdict: str) -> None:
    """Six rising units: 2 of 720 orders are as extreme. Four can give 2 / 24 at best."""
    results = losses(*(0.5 + 0.1 * k for k in range(units)))
    rising = {"is": "associated", "with_metric": "train_loss", "over": "lr"}
    (found,) = judged(results, rising)
    assert found.verdict == verdict
    if units == 6:
        assert found.effect == pytest.approx(1.0)
        assert found.p_adjusted == pytest.approx(2 / 720)
        trials = results.trials.assign(train_loss=-results.trials["train_loss"].astype(float))
        (falling,) = judged(dataclasses.replace(results, trials=trials), rising)
        assert (falling.verdict, falling.effect) == (REFUTED, pytest.approx(-1.0))


def test_label_measures_come_from_the_labels_table() -> None:
    """Training loss over H(p): 0.5 / ln 2 and 0.2 / H(0.1); a diverged model counts as 1."""
    values = np.stack([0.5 + 0.001 * OFFSETS, 0.2 + 0.001 * OFFSETS], axis=1)
    results = simulated.results(values, values, [{"label": "A"}, {"label": "B"}])
    trials = results.trials
    table = pd.DataFrame({
        "trial_id": trials["trial_id"], "label": trials["label"], "task": "one label",
        "train_loss": trials["train_loss"], "nce": 0.9,
        "train_base_rate": trials["label"].map({"A": 0.5, "B": 0.1}),
    })  # fmt: skip
    results = dataclasses.replace(results, labels=table)
    claim = {"metric": "train_loss_over_constant", "is": "highest", "of": {"label": "A"}}
    (found,) = judged(results, claim)
    h = -(0.1 * math.log(0.1) + 0.9 * math.log(0.9))
    assert found.verdict == SUPPORTED
    assert found.effect == pytest.approx(0.5 / math.log(2) - 0.2 / h, abs=1e-3)
    gone = trials.assign(status=trials["status"].where(trials["label"] == "A", "diverged"))
    (other,) = judged(dataclasses.replace(results, trials=gone), {**claim, "metric": "nce"})
    assert (other.verdict, other.effect) == (REFUTED, pytest.approx(-0.1))


def test_spread_comes_from_its_file(tmp_path: Path) -> None:
    """Without attention/spread.csv the claim is not tested, with it it is."""
    results = dataclasses.replace(losses(0.5, 0.6), folder=tmp_path)
    claim = {"metric": "effective_patches", "is": "highest", "of": {"lr": 2.0}}
    (found,) = judged(results, claim)
    assert (found.verdict, "spread.csv" in claim_why(found)) == (NOT_TESTED, True)
    (tmp_path / "attention").mkdir()
    spread = results.trials[["trial_id"]].assign(effective_patches=results.trials["lr"] * 3.0)
    spread.to_csv(tmp_path / "attention" / "spread.csv")
    (found,) = judged(results, claim)
    assert (found.verdict, found.effect) == (SUPPORTED, pytest.approx(3.0))


def test_a_region_comes_from_the_same_file(tmp_path: Path) -> None:
    """The lift of a region is compared like a loss; without its column it is not tested."""
    results = dataclasses.replace(losses(0.5, 0.6), folder=tmp_path)
    (tmp_path / "attention").mkdir()
    lift = results.trials[["trial_id"]].assign(eyes_lift=results.trials["lr"] * 0.5)
    lift.to_csv(tmp_path / "attention" / "spread.csv")
    claim = {"metric": "eyes_lift", "is": "lowest", "of": {"lr": 1.0}}
    (found,) = judged(results, claim)
    assert (found.verdict, found.effect) == (SUPPORTED, pytest.approx(-0.5))
    (other,) = judged(results, {**claim, "metric": "mouth_lift"})
    assert other.verdict == NOT_TESTED
    assert "the mouth lift of no trial is known" in claim_sentence(other)


def test_the_extent_of_a_label_is_known_of_drawn_faces() -> None:
    """Losses that rise with the share of a face that the label changes; elsewhere not tested."""
    rising = sorted(faces.EXTENTS, key=lambda label: faces.EXTENTS[label])
    values = np.stack([0.1 * k + OFFSETS for k in range(len(rising))], axis=1)
    results = simulated.results(values, values, [{"label": label} for label in rising])
    claim = {"is": "associated", "with_metric": "extent", "over": "label"}
    (found,) = judged(results, claim)
    assert found.verdict == NOT_TESTED
    assert "drawn faces, not of mnist" in claim_sentence(found)
    drawn = {**results.sweep, "dataset": {"name": "faces"}}
    (found,) = judged(dataclasses.replace(results, sweep=drawn), claim)
    assert (found.verdict, found.effect, found.n) == (SUPPORTED, pytest.approx(1.0), 8)


def test_claims_added_after_the_first_trial_are_marked(tmp_path: Path) -> None:
    """environment.json keeps the claims of the first start, whatever a resume brings."""
    text = result_folder.GRID + (
        "claims:\n  - {id: a, says: A, metric: test_loss, of: {lr: 0.01}, is: lowest}\n"
    )
    folder = result_folder.make(tmp_path / "run", text)
    (claim,) = load_sweep(folder / "sweep.yaml").claims
    for resumed, now in ((False, [claim.fingerprint]), (True, [claim.fingerprint, "f" * 16])):
        stated = environment.claims_at_start(folder, now, resumed=resumed)
        environment.write(folder, argv=[], claims=stated)
    written = json.loads((folder / "environment.json").read_text())
    assert written["claims"] == [claim.fingerprint]
    assert not claims.judge(load(folder))[0].added_after
    file = folder / "sweep.yaml"
    file.write_text(file.read_text().replace("is: lowest", "is: highest"))
    assert claims.judge(load(folder))[0].added_after


@pytest.mark.parametrize(("seeds", "sd"), [(6, 1.79), (8, 1.17), (10, 1.03)])
def test_detectable_differences_are_those_of_the_exact_test(seeds: int, sd: float) -> None:
    """Against the published design; six seeds have a closed form: all six have one sign."""
    assert power.DETECTABLE_SD[seeds] == pytest.approx(sd, abs=0.05)
    assert power.detectable_sd(seeds, sweeps=2000) == pytest.approx(sd, abs=0.07)


def test_the_forecast_names_the_option_that_helps() -> None:
    """One seed decides nothing; six detect 1.79 sd."""
    file = Path(__file__).parents[2] / "sweeps" / "mnist_lr.yaml"
    (one,) = power.forecast(load_sweep(file))
    assert "1 seed cannot decide any" in sentence(one) and "--seeds 6" in sentence(one)
    six = load_sweep(file, overrides=["search.space.seed=[0,1,2,3,4,5]"])
    (told,) = power.forecast(six)
    assert "6 seeds detect 1.79 sd" in sentence(told) and "10 to detect 1 sd" in sentence(told)
    many = load_sweep(file, overrides=[f"search.space.seed={list(range(20))}"])
    assert "20 seeds detect less than 0.72 sd" in sentence(power.forecast(many)[0])
    assert power.forecast(load_sweep(file, overrides=["claims=[]"])) == []
    _, spread = power.forecast(load_sweep(file.with_name("celeba_labels.yaml")))
    assert sentence(spread).startswith("Claim spread cannot be decided: 3 values of label are its")


MODELS = """
name: made
dataset: {name: digits, image_size: 8}
models:
  vit: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
  cnn: {build: "vitbench.model.baselines:cnn", args: {width: 4}}
  linear: {build: "vitbench.model.baselines:linear"}
train: {epochs: 3, batch_size: 64, train_images: 300, val_images: 100, test_images: 50}
search:
  space:
    model: [vit, cnn, linear]
    vit.lr: [0.001, 0.01]
    cnn.lr: [0.01, 0.1, 1.0]
    linear.lr: [0.1]
    seed: [0, 1, 2, 3, 4, 5]
claims:
  - {id: a, says: so, metric: test_loss, of: {model: cnn}, is: lower, than: {model: vit}}
  - {id: b, says: so, metric: test_loss, of: {model: linear}, is: highest}
"""


def test_models_over_rates_of_their_own_are_compared(tmp_path: Path) -> None:
    """Each model's mean over what the file gives to it alone; arms carry the names."""
    losses = {"vit": 0.5, "cnn": 0.3, "linear": 0.9}

    def loss(trial: TrialConfig) -> float:
        assert trial.model.name is not None
        return losses[trial.model.name] + 0.01 * math.sin(trial.train.seed + trial.train.lr)

    results = load(result_folder.make(tmp_path, MODELS, loss))
    assert [(v.claim.id, v.verdict) for v in claims.judge(results)] == [
        ("a", "supported"),
        ("b", "supported"),
    ]
    arms = by_arm(results, "test_loss").settings
    assert "model linear, lr 0.1" in arms.index and len(arms) == 6
