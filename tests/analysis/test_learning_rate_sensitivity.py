"""Learning-rate sensitivity against a curve whose integral is known."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy import integrate

from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.render import sentence
from vitbench.analysis.learning_rate import sensitivity
from vitbench.analysis.learning_rate.findings import no_sensitivity
from vitbench.analysis.learning_rate.settled import Settled, settled

NINE = [float(f"{m}e{e}") for e in range(-5, -1) for m in (1, 3)] + [0.1]


def loss(lr: float, best: float = 1e-3, l0: float = 2.3) -> float:
    """A bowl in log10 lr, flat near its best and capped at l0."""
    return min(l0, 0.1 + 0.45 * abs(math.log10(lr / best)) ** 1.6)


def trials(lrs: list[float], seeds: int, *, noise: float = 0.0, best: float = 1e-3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "lr": lr,
                "seed": seed,
                "status": "finished",
                "val_loss": loss(lr, best) + noise * rng.normal(),
                "initial_val_loss": 2.3,
                "batch_size": 16,
            }
            for lr in lrs
            for seed in range(seeds)
        ]
    )


def test_the_trapezoid_is_within_three_percent_at_nine_points() -> None:
    """S of a known curve by adaptive quadrature; the plain mean over the grid is further off."""
    ends = np.log([1e-5, 1e-1])
    area, _ = integrate.quad(lambda x: loss(math.exp(x)), *ends, limit=500)
    truth = area / (ends[1] - ends[0]) - 0.1
    found = sensitivity.measure(trials(NINE, 1))
    assert found.s_trapz == pytest.approx(truth, rel=0.03)
    assert abs(found.s_grid - truth) > abs(found.s_trapz - truth)
    assert (found.low_lr, found.high_lr, found.rates) == (1e-5, 1e-1, 9)


def test_diverged_runs_stand_at_the_initial_loss() -> None:
    """A NaN, and a loss above the initial one, both count as l0 and not as missing or more."""
    frame = trials(NINE, 1)
    calm = sensitivity.measure(frame.assign(val_loss=frame["val_loss"].where(frame.lr < 0.03, 2.3)))
    wild = frame.copy()
    wild.loc[wild.lr == 0.03, ["val_loss", "status"]] = [math.nan, "diverged"]
    wild.loc[wild.lr == 0.1, "val_loss"] = 1e6
    found = sensitivity.measure(wild)
    assert found.s_trapz == pytest.approx(calm.s_trapz) and found.s_grid == pytest.approx(
        calm.s_grid
    )
    assert found.diverged == 1
    assert (found.last_good_lr, found.edge_lr) == (0.01, 0.03)


def test_the_interval_over_seeds_is_centred_on_s_and_covers() -> None:
    """Six noisy seeds: the interval holds S of the noise-free curve and is absent below three."""
    truth = sensitivity.measure(trials(NINE, 1)).s_trapz
    found = sensitivity.measure(trials(NINE, 6, noise=0.03))
    assert found.s_trapz_low < truth < found.s_trapz_high
    assert (found.s_trapz_low + found.s_trapz_high) / 2 == pytest.approx(found.s_trapz)
    few = sensitivity.measure(trials(NINE, 2, noise=0.03))
    assert math.isnan(few.s_trapz_low) and math.isfinite(few.s_trapz)


def test_fewer_than_five_rates_give_no_s_and_say_why() -> None:
    """The paper's three learning rates rank, and nothing more."""
    found = sensitivity.measure(trials([3e-3, 3e-4, 3e-5], 3))
    assert math.isnan(found.s_trapz) and math.isnan(found.s_grid) and math.isnan(found.safe_low)
    assert found.why_not == "few_rates"
    said = sentence(no_sensitivity(asdict(found)))
    assert (
        said.startswith("Sensitivity needs at least 5 learning rates: 3 can be ranked")
        and "at least 5" in said
    )
    assert found.best_lr == 3e-4 or found.best_lr == 3e-3


def test_the_safe_window_is_interpolated_and_open_at_the_end_of_the_range() -> None:
    """Losses linear in ln lr: the ends are where the line crosses best + delta."""
    lrs = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    frame = trials(lrs, 1).assign(val_loss=[0.05, 0.0, 0.2, 1.0, 2.0])
    found = sensitivity.measure(frame, delta=0.1)
    assert found.safe_low == 1e-4 and found.safe_open == "low"
    assert found.safe_high == pytest.approx(10**-2.5)
    assert found.safe_decades == pytest.approx(1.5)


def test_an_optimum_on_the_boundary_is_flagged() -> None:
    """The best lr may lie outside; the range must say so."""
    assert sensitivity.measure(trials(NINE, 1, best=1e-1)).boundary == "high"
    assert sensitivity.measure(trials(NINE, 1, best=1e-5)).boundary == "low"
    assert sensitivity.measure(trials(NINE, 1)).boundary == ""


def test_best_loss_on_unseen_seeds_is_not_optimistic() -> None:
    """Pure noise: the minimum of means is below the truth, the cross-fitted value is not."""
    gaps, unseen = [], []
    for repeat in range(200):
        frame = trials(NINE, 4)
        noise = np.random.default_rng(repeat).normal(size=len(frame))
        found = sensitivity.measure(frame.assign(val_loss=noise, initial_val_loss=99.0))
        gaps.append(found.best_loss)
        unseen.append(found.best_loss_unseen)
    assert np.mean(gaps) < -0.5
    assert abs(np.mean(unseen)) < 0.15


def test_trials_without_an_end_are_left_out_and_counted() -> None:
    """A running trial is neither good nor bad; its seed gives no S."""
    frame = trials(NINE, 3)
    frame.loc[(frame.lr == 1e-5) & (frame.seed == 0), "status"] = "running"
    found = sensitivity.measure(frame)
    assert found.seeds == 2 and found.left_out == 2
    nothing = sensitivity.measure(frame.assign(status="running"))
    assert nothing.why_not == "no_whole_seed" and nothing.seeds == 0
    assert sentence(no_sensitivity(asdict(nothing))) == "No seed has an end at every learning rate."


def test_the_table_has_a_row_per_model() -> None:
    """Whether the best rate moves with batch size is read from here."""
    other = trials(NINE, 3, best=1e-2).assign(batch_size=64)
    both = pd.concat([trials(NINE, 3), other])
    found = sensitivity.table(both, ["batch_size"]).set_index("batch_size")
    assert dict(found["best_lr"]) == {16: 1e-3, 64: 1e-2}
    assert list(found["agree"]) == [3, 3]


def over_epochs(losses: dict[float, list[float]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One trial a rate, with these validation losses from epoch 1 on."""
    rows = [
        {"trial_id": f"{lr}", "epoch": epoch, "val_loss": value}
        for lr, values in losses.items()
        for epoch, value in enumerate(values, 1)
    ]
    ended = [
        {"trial_id": f"{lr}", "lr": lr, "seed": 0, "status": "finished", "initial_val_loss": 2.3}
        for lr in losses
    ]
    return pd.DataFrame(ended), pd.DataFrame(rows)


def test_since_when_the_best_rates_keep_their_order() -> None:
    """0.01 leads at first and is overtaken; a fourth rate that moves about changes nothing."""
    losses = {
        0.001: [2.0, 1.5, 0.9, 0.4, 0.3],
        0.003: [1.8, 1.2, 0.8, 0.5, 0.4],
        0.01: [1.5, 1.1, 1.0, 1.0, 1.0],
        0.1: [3.0, 9.0, 2.2, 9.0, 2.2],
    }
    found = settled(*over_epochs(losses))
    assert found == Settled((0.001, 0.003, 0.01), best_since=4, since=4, last=5, seeds=1)
    late = {lr: values[:4] for lr, values in losses.items()}
    assert settled(*over_epochs(late)) == Settled((0.001, 0.003, 0.01), 4, 4, 4, 1)
    losses[0.003][3] = 1.1  # third at epoch 4
    assert settled(*over_epochs(losses)) == Settled((0.001, 0.003, 0.01), 4, 5, 5, 1)


def test_a_rate_that_diverged_stands_at_the_start_of_training() -> None:
    """It has no loss at later epochs, and is among the best of none; too few epochs say nothing."""
    trials, epochs = over_epochs({0.001: [2.0, 1.0, 0.5], 0.003: [1.9, 0.9, 0.6], 0.01: [1.0]})
    trials.loc[trials.lr == 0.01, "status"] = "diverged"
    assert settled(trials, epochs) == Settled((0.001, 0.003, 0.01), 3, 3, 3, 1)
    assert settled(trials, epochs[epochs.epoch < 3]) is None
    assert settled(trials[trials.lr < 0.01], epochs) is None


def test_seeds_that_lack_a_rate_do_not_order_the_rates() -> None:
    """A second seed, with 0.01 as its best, has no end at 0.003: the order is that of the first."""
    trials, epochs = over_epochs({0.001: [0.5] * 3, 0.003: [0.6] * 3, 0.01: [0.7] * 3})
    other = trials.assign(trial_id="other " + trials["trial_id"], seed=1)
    other.loc[other.lr == 0.003, "status"] = "crashed"
    low = epochs.assign(trial_id="other " + epochs["trial_id"])
    low.loc[low.trial_id == "other 0.01", "val_loss"] = 0.0
    found = settled(pd.concat([trials, other]), pd.concat([epochs, low]))
    assert found == Settled((0.001, 0.003, 0.01), 1, 1, 3, 1)


def test_what_is_said_of_an_order_that_came_late() -> None:
    """0.001 leads at first and at the end, not between: nothing is said of the time before that."""
    losses = {0.001: [0.1, 0.9, 0.1], 0.003: [0.2, 0.2, 0.2], 0.01: [0.3, 0.3, 0.3]}
    found = settled(*over_epochs(losses))
    assert found is not None
    told = sentence(Finding("lr_settled", arms=("",), n=found.seeds, facts=asdict(found)))
    assert "after epoch 3, and was not at the one before" in told


def six_seeds(losses: dict[float, list[float]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves that differ a little by seed, in the same direction everywhere but where told apart
    by more than 0.2, which every seed shows.
    """
    parts = []
    for seed in range(6):
        moved = {
            lr: [v + 0.1 * (-1) ** (seed + n) for v in values]
            for n, (lr, values) in enumerate(losses.items())
        }
        one, course = over_epochs(moved)
        trials = one.assign(trial_id=f"{seed} " + one["trial_id"], seed=seed, initial_val_loss=9.0)
        parts.append((trials, course.assign(trial_id=f"{seed} " + course["trial_id"])))
    trials, epochs = zip(*parts, strict=True)
    return pd.concat(trials), pd.concat(epochs)


def test_rates_that_are_level_at_the_end_are_named() -> None:
    """0.003 is worse than 0.001 in three seeds of six, 0.01 in every one; before the last two
    epochs 0.003 was worse in every seed, too. Five seeds tell nothing apart.
    """
    trials, epochs = six_seeds(
        {0.001: [2.0, 1.0, 0.5, 0.5], 0.003: [2.5, 1.5, 0.51, 0.51], 0.01: [3.0, 2.0, 1.4, 1.4]}
    )
    found = settled(trials, epochs)
    assert found is not None and (found.best[0], found.level) == (0.001, (0.003,))
    assert (found.level_since, found.told_since) == (3, 1)
    told = sentence(Finding("lr_settled", arms=("",), n=found.seeds, facts=asdict(found)))
    assert told.endswith(
        ". At the end not told apart from 0.001 (all pairs of rates compared at once): 0.003: from "
        "epoch 3 on no evaluation tells any two of these 2 apart, so which of them leads says "
        "nothing. Any two rates that an evaluation from epoch 1 on tells apart stand in the order "
        "of the last one."
    )
    fewer = settled(trials[trials["seed"] < 5], epochs)
    assert fewer is not None and (fewer.level, fewer.told_since) == ((), None)


def test_since_when_rates_stand_as_at_the_end() -> None:
    """0.003 is worse than 0.001 in every seed at first and better in every seed from epoch 3 on."""
    found = settled(
        *six_seeds(
            {0.001: [1.0, 1.0, 1.0, 1.0], 0.003: [2.0, 2.0, 0.5, 0.5], 0.01: [3.0, 3.0, 3.0, 3.0]}
        )
    )
    assert found is not None and found.best == (0.003, 0.001, 0.01)
    assert (found.told_since, found.level, found.level_since) == (3, (), 1)
