"""Time to a stated accuracy, on tables small enough to work out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vitbench.analysis.findings.render import sentence
from vitbench.analysis.results import Results
from vitbench.analysis.time_to_target import figures, findings
from vitbench.analysis.time_to_target import numbers as speed


def tables(
    arrivals: dict[tuple[float, int], int | None],
    status: dict[tuple[float, int], tuple[str, int]] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials and epochs in which (lr, seed) reaches 0.9 at the given epoch of 8, or never.

    `status` names trials that did not finish, with their last epoch.
    """
    trials, epochs = [], []
    for number, (key, arrival) in enumerate(arrivals.items()):
        lr, seed = key
        ending, last = (status or {}).get(key, ("finished", 8))
        name = f"t{number}"
        trials.append(
            {"trial_id": name, "lr": lr, "seed": seed, "stack_size": 2, "images_per_s": 10.0}
            | {"status": ending}
        )
        for epoch in range(1, last + 1):
            there = arrival is not None and epoch == arrival
            epochs.append(
                {
                    "trial_id": name,
                    "epoch": epoch,
                    "epoch_s": 3.0,
                    "train_loss": 1.0,
                    "val_loss": 1.0,
                    "val_accuracy": 0.95 if there else 0.5,
                }
            )
    return pd.DataFrame(trials), pd.DataFrame(epochs)


def times_of(
    arrivals: dict[tuple[float, int], int | None],
    status: dict[tuple[float, int], tuple[str, int]] | None = None,
) -> pd.DataFrame:
    return speed.time_to_target(*tables(arrivals, status), 0.9, ["lr"])


def opened(
    arrivals: dict[tuple[float, int], int | None],
    status: dict[tuple[float, int], tuple[str, int]] | None = None,
) -> Results:
    trials, epochs = tables(arrivals, status)
    space = {"lr": sorted(trials["lr"].unique()), "seed": sorted(trials["seed"].unique())}
    sweep = {"search": {"method": "grid", "space": space}, "target_accuracy": 0.9}
    return Results(Path("made"), trials, epochs, sweep, {}, target=0.9)


def test_first_arrival_counts_and_a_miss_is_infinite() -> None:
    """The epoch of the first arrival, with the trial's share of its stack's time."""
    times = times_of({(0.1, 0): 3, (0.1, 1): None, (0.01, 0): 6, (0.01, 1): 8})
    assert times["epochs"].tolist() == [3, math.inf, 6, 8]
    assert times["seconds"].tolist() == [3 * 3 / 2, math.inf, 6 * 3 / 2, 8 * 3 / 2]
    assert times["last_s"].tolist() == [8 * 3 / 2] * 4
    assert speed.by_arm(times).set_index("arm")["reached"].to_dict() == {"lr 0.1": 1, "lr 0.01": 2}


@pytest.mark.parametrize("status", ["running", "budget", "stopped", "interrupted", "crashed"])
def test_a_trial_cut_short_is_censored_and_no_failure(status: str) -> None:
    """Kaplan-Meier by hand, with ties: arrivals at 2, 2 and 6, censored at 2 and 4.

    S(2) = 1 - 2/5 (the one censored at 2 is still at risk), S(6) = 3/5 (1 - 1/1) = 0.
    """
    times = times_of(
        {(0.1, 0): 2, (0.1, 1): 2, (0.1, 2): None, (0.1, 3): None, (0.1, 4): 6},
        {(0.1, 2): (status, 2), (0.1, 3): (status, 4)},
    )
    curve = speed.curves(times).iloc[1:]  # after a row at epoch 0
    assert curve["epochs"].tolist() == [2, 4, 6]
    assert curve["share"].tolist() == pytest.approx([2 / 5, 2 / 5, 1])
    assert curve["at_risk"].tolist() == [5, 2, 1]
    assert curve["arrivals"].tolist() == [2, 0, 1] and curve["censored"].tolist() == [1, 1, 0]
    assert speed.by_arm(times)["epochs"].tolist() == [6]  # of the arrivals alone it would be 2
    assert not times["whole"].all()


def test_one_that_diverged_stays_at_risk_and_one_that_finished_is_censored() -> None:
    """Arrivals at 2 and 6; diverged after 1 epoch: S = 2/3, then 1/3. Censored at 1: 1/2, 0."""
    arrivals = {(0.1, 0): 2, (0.1, 1): 6, (0.1, 2): None}
    diverged = speed.curves(times_of(arrivals, {(0.1, 2): ("diverged", 1)})).iloc[1:]
    assert diverged["epochs"].tolist() == [2, 6]
    assert diverged["share"].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert diverged["at_risk"].tolist() == [3, 2] and set(diverged["median"]) == {6}
    finished = speed.curves(times_of(arrivals, {(0.1, 2): ("finished", 1)})).iloc[1:]
    assert finished["share"].tolist() == pytest.approx([0, 1 / 2, 1])
    assert set(finished["median"]) == {2}
    none = speed.curves(times_of({(0.1, 0): None, (0.1, 1): None})).iloc[1:]
    assert none["share"].tolist() == [0] and set(none["median"]) == {math.inf}


def test_times_are_compared_up_to_a_common_horizon() -> None:
    """No value lies beyond what any trial was observed to; one that diverged counts as the end."""
    times = times_of(
        {(0.1, 0): 2, (0.1, 1): None, (0.01, 0): 7, (0.01, 1): None, (1.0, 0): 1, (1.0, 1): None},
        {(0.1, 1): ("diverged", 1), (0.01, 1): ("finished", 5), (1.0, 1): ("running", 3)},
    )
    compared = speed.restricted(times)
    assert compared.horizon == 5 and compared.left_out == ("lr 1",)
    assert compared.values.to_dict("list") == {"lr 0.1": [2, 5], "lr 0.01": [5, 5]}


def test_faster_is_said_only_where_all_seeds_agree() -> None:
    """Six seeds of six: p = 2 / 64. Five seeds never; nor six that disagree."""
    fast = {(0.1, seed): 2 + seed % 2 for seed in range(6)}
    slow = {(0.01, seed): 5 + seed % 3 for seed in range(6)}
    told = findings.findings(opened({**fast, **slow}))
    (claim,) = [finding for finding in told if finding.asserts]
    assert claim.arms == ("lr 0.01", "lr 0.1") and claim.n == 6
    assert claim.p_adjusted == pytest.approx(2 / 64)
    assert claim.effect == pytest.approx(np.mean([5 + s % 3 - 2 - s % 2 for s in range(6)]))
    words = "Learning rate 0.1 reaches validation accuracy 0.9 faster than learning rate 0.01"
    assert sentence(claim).startswith(words)
    five = {key: epoch for key, epoch in {**fast, **slow}.items() if key[1] < 5}
    assert not any(finding.asserts for finding in findings.findings(opened(five)))
    mixed = {**fast, **slow, (0.1, 0): 8}
    assert not any(finding.asserts for finding in findings.findings(opened(mixed)))


def test_medians_and_limits_in_words() -> None:
    """A median that the curve does not reach is said to be so, and censored trials are counted."""
    made = opened(
        {(0.1, 0): 2, (0.1, 1): 4, (0.01, 0): None, (0.01, 1): None},
        {(0.01, 0): ("running", 3)},
    )
    words = [sentence(finding) for finding in findings.findings(made)]
    assert words[0] == (
        "Of 4 models 2 reach validation accuracy 0.9. The median time (Kaplan-Meier) is 2 epochs "
        "at learning rate 0.1. Not reached by half of the models, as far as they were observed: "
        "1 of 2 settings."
    )
    assert (
        words[1].startswith("1 setting is in no comparison of times")
        and "learning rate 0.01" in words[1]
    )
    limits = " ".join(sentence(limit) for limit in findings.limits(made))
    assert "2 models were last seen before they reached the target (1 of them cut short)" in limits
    none = findings.findings(opened({(0.1, 0): None, (0.1, 1): None}))
    assert [finding.kind for finding in none] == ["target_reached_by_none"]
    assert "No model of 2 reaches" in sentence(none[0])


def test_every_axis_of_the_sweep_makes_an_arm() -> None:
    """An axis that no list foresaw is not pooled: its two values are two arms."""
    trials, epochs = tables({(0.1, seed): 2 + seed for seed in range(4)})
    trials = trials.assign(warmup_epochs=[0, 0, 3, 3], seed=[0, 1, 0, 1])
    times = speed.time_to_target(trials, epochs, 0.9, ["warmup_epochs"])
    assert set(times["arm"]) == {"warmup epochs 0", "warmup epochs 3"}
    assert set(times["way"]) == set(times["arm"]) and set(times["workload"]) == {"seed 0", "seed 1"}


def test_the_figure_shows_the_numbers_of_its_table() -> None:
    """The curve of each arm begins at 0 arrived, and ends at what Kaplan-Meier gives.

    Where all have arrived it stays there to the end of the axis.
    """
    data = figures.target_data(opened({(0.1, 0): 2, (0.1, 1): 4, (0.01, 0): 4, (0.01, 1): None}))
    assert data is not None
    part = data[data["arm"] == "lr 0.1"]
    assert part["epochs"].tolist() == [0, 2, 4] and part["share"].tolist() == [0, 0.5, 1]
    other = data[data["arm"] == "lr 0.01"]
    assert other["share"].tolist() == [0, 0.5, 0.5] and other["censored"].tolist() == [0, 0, 1]
    drawn = figures.draw_target(data, "title").axes[0]
    heights = [list(line.get_ydata()) for line in drawn.get_lines()]
    assert [*part["share"], 1.0] in heights and other["share"].tolist() in heights


def test_profile_is_the_share_within_a_factor_of_the_fastest() -> None:
    """rho and its area against the integral taken numerically from the definition."""
    arrivals = {(0.1, 0): 2, (0.1, 1): 4, (0.1, 2): None, (0.01, 0): 4, (0.01, 1): 2, (0.01, 2): 8}
    found = speed.profile(speed.ratios(times_of(arrivals)))
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
    (told,) = [f for f in findings.findings(opened(arrivals)) if f.kind == "target_profile"]
    assert not told.asserts and "described, not tested" in sentence(told)
    cut = speed.ratios(times_of(arrivals, {(0.1, 2): ("running", 8)}))
    assert cut["workload"].nunique() == 2  # it might still be the fastest there


def test_too_few_workloads_give_no_profile() -> None:
    """Two workloads or one arm make no profile: nothing would be behind it."""
    times = times_of({(0.1, 0): 2, (0.1, 1): 4, (0.01, 0): 4, (0.01, 1): 2})
    assert speed.profile(speed.ratios(times)).empty


def test_arrivals_are_seen_at_evaluations_alone() -> None:
    """Where every third epoch is evaluated: when it was seen, and until when the others were."""
    trials, epochs = tables({(0.1, 0): 6, (0.2, 0): None}, {(0.2, 0): ("interrupted", 8)})
    passed = epochs["epoch"] % 3 != 0
    epochs.loc[passed, ["val_loss", "val_accuracy"]] = np.nan
    times = speed.time_to_target(trials, epochs, 0.9, ["lr"]).set_index("arm")
    assert times["epochs"].tolist() == [6, math.inf] and times["seconds"].iloc[0] == 9
    assert times["last"].tolist() == [6, 6]  # epoch 8 was trained, and nobody looked


def test_curves_of_all_arms_are_those_of_each() -> None:
    """One pass over the trials gives what each arm gives by itself, after a start at epoch 0."""
    found = {(0.1, 0): 2, (0.1, 1): None, (0.01, 0): 5, (0.01, 1): 5, (0.001, 0): None}
    times = times_of(found, {(0.1, 1): ("interrupted", 4), (0.001, 0): ("diverged", 3)})
    curves = speed.curves(times)
    for arm, part in times.groupby("arm", sort=False):
        alone, rows = speed.curves(part), curves[curves["arm"] == arm].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, rows)
        assert rows["epochs"].iloc[0] == 0 and set(rows["models"]) == {len(part)}
