"""How often reports on numbers of training images are wrong, and what their intervals cover."""

from __future__ import annotations

import os
from collections import defaultdict

import numpy as np
import pytest
import simulated_sizes as sizes
from scipy import stats
from simulated_sizes import SIZES, Truth, power

from vitbench.analysis.data_size import findings, power_law
from vitbench.analysis.data_size.curves import curves_of
from vitbench.analysis.data_size.power_law import Refusal
from vitbench.analysis.findings import claims

SWEEPS = int(os.environ.get("VITBENCH_CALIBRATION_SWEEPS", "40"))


def too_many(false: int, of: int, rate: float = 0.05) -> bool:
    """Whether so many false reports speak against a true rate (one-sided, p < 0.001)."""
    return float(stats.binom.sf(false - 1, of, rate)) < 0.001


@pytest.fixture
def without_laws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences about laws assert nothing, and fitting takes nearly all of the time."""
    monkeypatch.setattr(findings, "fits_of", lambda made: defaultdict(lambda: Refusal("few_sizes")))


@pytest.mark.usefixtures("without_laws")
@pytest.mark.parametrize(
    ("models", "seeds"), [(1, 6), (2, 6), pytest.param(3, 10, marks=pytest.mark.long)]
)
def test_equal_sizes_rates_and_models_are_rarely_told_apart(models: int, seeds: int) -> None:
    """Where more images bring nothing, no rate is better and all models are equal."""
    rng = np.random.default_rng([models, seeds])
    names = ("radam", "adamw", "sgd")[:models]
    wrong = 0
    for _ in range(SWEEPS):
        made = sizes.results(
            rng, dict.fromkeys(names, power(0.0, 1.0, 0.1)), seeds=seeds, rates=(0.001, 0.003, 0.01)
        )
        wrong += any(finding.asserts for finding in findings.findings(made))
    print(f"data size, null: {models} models, {seeds} seeds: {wrong / SWEEPS:.1%}")
    assert not too_many(wrong, SWEEPS)


@pytest.mark.usefixtures("without_laws")
def test_who_leads_where_is_rarely_told_wrongly() -> None:
    """Curves that cross at 256 images, one rate that is as good as any: what is said is true."""
    truths: dict[str, Truth] = {"radam": power(6.0, 0.7, 0.0), "sgd": power(1.14, 0.4, 0.0)}
    place = (6.0 / 1.14) ** (1 / 0.3)
    rng = np.random.default_rng(5)
    wrong = found = covered = 0
    for _ in range(SWEEPS):
        told = findings.findings(sizes.results(rng, truths, noise=0.1))
        false = any(f.asserts for f in told if f.kind == "size_rates")
        for one in told:
            if one.kind == "size_steps":
                false |= bool(one.facts["rises"])
            elif one.kind == "size_crossing":
                assert one.low is not None and one.high is not None
                found += 1
                covered += one.low <= place <= one.high
                is_right = one.arms == ("optimizer sgd", "optimizer radam")
                false |= not (is_right and one.facts["here"] < place < one.facts["there"])
            elif one.kind == "size_lead" and one.asserts:
                for name, at in one.facts["leads"].items():
                    places = [int(text.replace(",", "")) for text in at]
                    first = name == "optimizer sgd"
                    false |= any((n < place) != first for n in places)
        wrong += false
    shown = f"found in {found / SWEEPS:.0%}, covered in {covered / max(found, 1):.0%} of these"
    print(f"data size, crossing at {place:.0f}: {wrong / SWEEPS:.1%} false; {shown}")
    assert not too_many(wrong, SWEEPS)
    assert found > 0.5 * SWEEPS and not too_many(found - covered, found)


@pytest.mark.parametrize(
    "seeds", [pytest.param(3, marks=pytest.mark.long), 6, pytest.param(10, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("target", ["between sizes", "beyond"])
def test_the_interval_of_images_needed_covers(seeds: int, target: str) -> None:
    """95 % of intervals hold the true number, between sizes and beyond them; also b's interval."""
    truth = power(4.0, 0.6, 0.02)
    images = 700 if target == "between sizes" else 4000
    rng = np.random.default_rng([9, seeds, images])
    missed = missed_b = missed_last = 0
    for _ in range(SWEEPS):
        (curve,) = curves_of(sizes.results(rng, {"radam": truth}, seeds=seeds, rates=(0.001,)))
        fitted = power_law.Fitted.of(SIZES, curve.error_SN, curve.half_image)
        needed_B = power_law.needed(
            SIZES, fitted.error_BN, fitted.laws, float(truth(np.array(images)))
        )
        low, high = power_law.interval(needed_B)
        missed += not low <= images <= high
        missed_b += not fitted.b_ends[0] <= 0.6 <= fitted.b_ends[1]
        missed_last += not fitted.miss_ends[0] <= 0 <= fitted.miss_ends[1]
    covers, covers_b = 1 - missed / SWEEPS, 1 - missed_b / SWEEPS
    shown = (
        f"b {covers_b:.1%}, the largest size by the fit without it {1 - missed_last / SWEEPS:.1%}"
    )
    print(f"images needed, {target} ({images}), {seeds} seeds: covered {covers:.1%}; {shown}")
    assert not any(too_many(count, SWEEPS) for count in (missed, missed_b, missed_last))


def test_good_curves_are_rarely_refused_and_rising_ones_always() -> None:
    """Noise alone is no rise; a hump of half the error is one."""
    rng = np.random.default_rng(13)
    refused = kept = 0
    for _ in range(SWEEPS):
        good, bad = (
            curves_of(sizes.results(rng, {"radam": truth}, rates=(0.001,)))[0].log_error()
            for truth in (power(1.0, 0.2, 0.0), lambda n: np.where(n == 512, 0.3, n**-0.3))
        )
        refused += bool(power_law.why_not(SIZES, good))
        kept += not power_law.why_not(SIZES, bad)
    print(f"good curves refused: {refused / SWEEPS:.1%}, rising ones kept: {kept / SWEEPS:.1%}")
    assert not too_many(refused, SWEEPS) and kept == 0


def test_a_claim_of_images_that_are_just_not_enough() -> None:
    """Where the true accuracy is the one that is claimed, at most 5 % of claims are decided."""
    asked = {
        "id": "few", "says": "256 images are enough", "metric": "test_accuracy",
        "of": {"train_images": 256}, "is": "at_least", "tuned": "lr",
        "value": 1 - float(power(4.0, 0.6, 0.02)(np.array(256))),
    }  # fmt: skip
    rng = np.random.default_rng(21)
    decided = 0
    for _ in range(SWEEPS):
        made = sizes.results(rng, {"radam": power(4.0, 0.6, 0.02)}, claims=[asked])
        (verdict,) = claims.judge(made)
        decided += verdict.verdict in (claims.SUPPORTED, claims.REFUTED)
    print(f"claims against a number, null: {decided / SWEEPS:.1%}")
    assert not too_many(decided, SWEEPS)
