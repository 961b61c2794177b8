"""How often a report on labels or attention is wrong, over simulated sweeps of known truth."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
import simulated
from scipy import stats

from vitbench.analysis.attention.findings import associations, looks
from vitbench.analysis.labels import findings as labels
from vitbench.analysis.results import Results
from vitbench.attention import scores
from vitbench.records.labels import entropy, excess, noise_floor
from vitbench.records.rows import LABEL_COLUMNS

pytestmark = pytest.mark.long

SWEEPS = int(os.environ.get("VITBENCH_CALIBRATION_SWEEPS", "120"))
_OF_LABELS = SWEEPS // 4  # each reads whole tables
RATES = (0.065, 0.48, 0.32, 0.15, 0.05, 0.47)
NOISE = 0.02
# What is truly equal between labels in each kind of sweep; the other measures truly differ.
EQUAL = {
    "matched": {"train_loss", "nce"},
    "base rates": {"train_loss_over_constant", "nce"},
    "noisy": {"excess"},
}


def too_many(false: int, of: int) -> bool:
    """Whether so many false reports speak against a true rate of 5 % (one-sided, p < 0.001)."""
    return float(stats.binom.sf(false - 1, of, 0.05)) < 0.001


def sweep(rng: np.random.Generator, kind: str, truth: np.ndarray, seeds: int) -> Results:
    """A sweep of labels whose share of the loss above the floor is `truth`."""
    names = [f"label {k}" for k in range(len(truth))]
    train, left = simulated.losses(rng, truth, seeds, correlation=0.5)
    rows = []
    for seed in range(seeds):
        for k, name in enumerate(names):
            w = RATES[k] if kind == "base rates" else 0.5
            noise = NOISE if kind == "noisy" else 0.0
            floor = noise_floor(w, RATES[k], noise)
            nce = floor + (1 - floor) * left[seed, k]
            rows.append(
                {
                    "trial_id": f"{seed}-{k}", "label": name, "task": "one label", "seed": seed,
                    "matched": None if kind == "base rates" else 700, "label_noise": noise,
                    "observed_rate": RATES[k], "floor": floor, "excess": excess(nce, floor),
                    "train_base_rate": w, "val_base_rate": w, "test_base_rate": w, "nce": nce,
                    "constant_bce": entropy(w), "train_loss": entropy(w) * train[seed, k],
                }
            )  # fmt: skip
    table = pd.DataFrame(rows).reindex(columns=list(LABEL_COLUMNS))
    return simulated.results(train, left, [{"label": name} for name in names], labels=table)


@pytest.mark.parametrize(
    ("kind", "count", "seeds"),
    [*((kind, 3, 6) for kind in EQUAL), ("noisy", 6, 10)],
)
def test_equal_labels_are_rarely_ordered(kind: str, count: int, seeds: int) -> None:
    """Of sweeps whose labels are equally difficult at most 5 % have any false assertion."""
    rng = np.random.default_rng([count, seeds, len(kind)])
    wrong = 0
    for _ in range(_OF_LABELS):
        told = labels.findings(sweep(rng, kind, np.full(count, 0.5), seeds))
        wrong += any(finding.asserts and finding.metric in EQUAL[kind] for finding in told)
    print(f"labels, null, {kind}: {count} labels, {seeds} seeds: {wrong / _OF_LABELS:.1%}")
    assert not too_many(wrong, _OF_LABELS)


def test_labels_that_differ_are_found() -> None:
    """Six seeds and three seed sd between labels: pairs are told apart, in the right order."""
    rng = np.random.default_rng(3)
    truth = np.array([0.5, 0.6, 0.6])
    right = wrong = 0
    for _ in range(_OF_LABELS):
        told = labels.findings(sweep(rng, "noisy", truth, 6))
        harder = {f.arms for f in told if f.kind == "label_is_harder"}
        right += len(harder & {("label 1", "label 0"), ("label 2", "label 0")})
        wrong += bool(harder - {("label 1", "label 0"), ("label 2", "label 0")})
    power = right / (2 * _OF_LABELS)
    print(f"labels, effect: power {power:.0%}, wrong {wrong / _OF_LABELS:.1%}")
    assert power > 0.5
    assert not too_many(wrong, _OF_LABELS)


@pytest.mark.parametrize(("count", "seeds"), [(2, 6), (3, 6), (3, 10)])
def test_maps_that_know_no_regions_are_rarely_told_to_look(count: int, seeds: int) -> None:
    """Every model prefers random patches; the lifts on two regions are those of real maps."""
    rng = np.random.default_rng([9, count, seeds])
    covers = {"eyes_lift": np.eye(16)[5] + np.eye(16)[6], "mouth_lift": np.eye(16)[9:11].sum(0)}
    wrong = 0
    for _ in range(SWEEPS):
        rows = []
        for label in range(count):
            for seed in range(seeds):
                taste = rng.normal(size=16) + 0.3 * rng.normal(size=(8, 16))
                maps = np.exp(taste) / np.exp(taste).sum(axis=1, keepdims=True)
                rows.append(
                    {
                        "label": f"label {label}",
                        "seed": seed,
                        **{
                            region: scores.lift(maps, np.tile(cover, (8, 1))).mean()
                            for region, cover in covers.items()
                        },
                    }
                )
        wrong += any(finding.asserts for finding in looks(pd.DataFrame(rows)))
    print(f"attention regions, null: {count} labels, {seeds} seeds: {wrong / SWEEPS:.1%}")
    assert not too_many(wrong, SWEEPS)


@pytest.mark.parametrize(("count", "seeds"), [(3, 6), (6, 6), (6, 3)])
def test_unrelated_spread_and_loss_are_rarely_associated(count: int, seeds: int) -> None:
    """90 % of the variance lies between labels, and spread and loss have nothing in common."""
    rng = np.random.default_rng([4, count, seeds])
    wrong = 0
    for _ in range(SWEEPS):
        columns = {
            name: (
                np.sqrt(0.9) * rng.normal(size=(count, 1))
                + np.sqrt(0.1) * rng.normal(size=(count, seeds))
            ).ravel()
            for name in ("effective_patches", "train_loss", "nce")
        }
        names = np.repeat([f"label {k}" for k in range(count)], seeds)
        data = pd.DataFrame({"group": names, "unit": "label", "lr": 0.001, **columns})
        wrong += any(f.asserts for f in associations(data.assign(excess=np.nan)))
    print(f"attention spread, null: {count} labels, {seeds} seeds: {wrong / SWEEPS:.1%}")
    assert not too_many(wrong, SWEEPS)
    assert count >= 5 or wrong == 0
