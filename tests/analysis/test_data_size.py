"""Curves over numbers of training images: laws that are known, and curves that are refused."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import result_folder
from scipy import optimize, stats

from vitbench.analysis import __main__, figure_spec, figures, results, summary
from vitbench.analysis.data_size import figures as drawn
from vitbench.analysis.data_size import findings, power_law
from vitbench.analysis.data_size.curves import curves_of
from vitbench.analysis.data_size.power_law import Refusal
from vitbench.analysis.findings.render import sentence
from vitbench.analysis.report import latex, report
from vitbench.analysis.results import Results
from vitbench.plan import TrialConfig

SIZES = (64, 128, 256, 512, 1024, 2048)
N = np.array(SIZES, dtype=float)
SWEEP = """
name: sizes
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {steps: 12, batch_size: 16, train_images: 1024, val_images: 100, test_images: 50}
target_accuracy: 0.8
search:
  method: grid
  space:
    train_images: [32, 64, 128, 256, 512, 1024]
    lr: [0.001, 0.01]
    seed: [0, 1, 2, 3, 4, 5]
claims:
  - id: enough
    says: 256 images are enough for 0.3
    metric: test_accuracy
    of: {train_images: 256}
    is: at_least
    value: 0.3
    tuned: lr
  - id: averaged
    says: the same at the mean over learning rates
    metric: test_accuracy
    of: {train_images: 256}
    is: at_least
    value: 0.3
  - id: too_much
    says: 64 images are enough for 0.9
    metric: test_accuracy
    of: {train_images: 64}
    is: at_least
    value: 0.9
    tuned: lr
"""


def law(images: int, lr: float, seed: int) -> float:
    """An error whose best rate is 0.001 up to 64 images and 0.01 from 128 on."""
    is_best = (lr == 0.001) == (images <= 64)
    noise = 1 + 0.02 * math.sin(7 * seed + images)
    return (2.0 * images**-0.5 + 0.02) * noise * (1.0 if is_best else 1.5)


def loss(trial: TrialConfig) -> float:
    return law(trial.train.train_images or 0, trial.train.lr, trial.train.seed)


def opened(folder: Path) -> Results:
    """Results with exactly these errors, and losses of two and a half times as much."""
    found = results.load(result_folder.make(folder, SWEEP, loss))
    trials, settings = found.trials, found.trials[["train_images", "lr", "seed"]]
    trials["test_accuracy"] = [1 - law(*row) for row in settings.itertuples(index=False)]
    trials["val_loss"] = trials["test_loss"] = 2.5 * (1 - trials["test_accuracy"])
    trials["initial_val_loss"] = math.log(10)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return opened(tmp_path_factory.mktemp("sizes") / "run")


@pytest.mark.parametrize(("a", "b", "c"), [(4.0, 0.6, 0.02), (1.0, 0.25, 0.0), (40.0, 1.3, 0.1)])
def test_a_known_law_is_found(a: float, b: float, c: float) -> None:
    """Without noise, to a part in a thousand; and the images that it takes to an error."""
    laws = power_law.fit(SIZES, (a * N**-b + c)[None, :])
    assert (laws.a, laws.b_B[0]) == pytest.approx((a, b), rel=1e-3)
    assert laws.c_B[0] == pytest.approx(c, abs=1e-4)
    error = a * 3000**-b + c
    assert laws.images(error)[0] == pytest.approx(3000, rel=0.01)
    assert laws.images(c / 2)[0] == math.inf
    # Data reliance is the derivative in n^(-1/2), in units of n^(-1/2) (Hoiem et al. 2021).
    u, step = 1000**-0.5, 1e-6
    slope = (a * (u + step) ** (2 * b) - a * (u - step) ** (2 * b)) / (2 * step)
    assert laws.reliance(1000)[0] == pytest.approx(slope * u, rel=2e-3)


def test_noisy_curves_are_fitted_as_scipy_fits_them() -> None:
    """Bounded least squares of relative errors, from several starts."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        y = (3 * N**-0.5 + 0.03) * np.exp(0.1 * rng.normal(size=len(N)))

        def misfit(p: np.ndarray, y: np.ndarray = y) -> np.ndarray:
            return np.asarray((p[0] * (N / N[-1]) ** -p[1] + p[2]) / y - 1)

        bounds = ([0, 0.01, 0], [np.inf, 4, np.inf])
        tried = [
            optimize.least_squares(misfit, [y[-1], b, c], bounds=bounds, xtol=1e-12, ftol=1e-12)
            for b in (0.2, 0.6, 1.5)
            for c in (1e-3, 0.5 * y[-1])
        ]
        best = min(tried, key=lambda one: one.cost)
        laws = power_law.fit(SIZES, y[None, :])
        got = misfit(np.array([laws.a_B[0], laws.b_B[0], laws.c_B[0]]))
        assert (got**2).sum() / 2 == pytest.approx(best.cost, rel=1e-3)


def test_resampled_means_spread_as_a_t_interval() -> None:
    """Six seeds give as wide an interval as Student's t; a plain bootstrap gives two thirds."""
    values = np.exp(np.random.default_rng(1).normal(-2, 0.05, size=(6, 400)))
    samples = power_law.resampled(values, 2000)
    np.testing.assert_allclose(samples[0], values.mean(axis=0))
    low, high = np.quantile(samples[1:], [0.025, 0.975], axis=0)
    half = stats.t.ppf(0.975, 5) * stats.sem(values, axis=0)
    assert np.median((high - low) / (2 * half)) == pytest.approx(1.0, abs=0.08)


def test_images_needed_by_hand() -> None:
    """On the line between two sizes in the logarithm; beyond by the law; 0 where all suffice."""
    error = np.array([[0.4, 0.2, 0.1], [0.4, 0.05, 0.3], [0.1, 0.1, 0.1]])
    sizes = (100, 200, 400)
    got = power_law.needed(sizes, error, None, 0.2**0.5 * 0.1**0.5)
    assert got[0] == pytest.approx(200 * 2**0.5)
    assert got[1] == math.inf  # above again at the largest size: not reached for good
    assert got[2] == 0
    laws = power_law.fit(sizes, np.array([[0.4, 0.2, 0.1]]))
    assert power_law.needed(sizes, error[:1], laws, 0.05)[0] == pytest.approx(800, rel=0.01)


def test_curves_cross_by_hand() -> None:
    """Where the line of the difference meets zero; the end of the range where it does not."""
    lead = np.array([[-1.0, 1.0, 2.0], [-1.0, -1.0, -1.0], [1.0, 1.0, 1.0], [-1.0, 3.0, 3.0]])
    got = findings.crossing((100, 200, 400), lead)
    assert got == pytest.approx([100 * 2**0.5, 400, 100, 100 * 2**0.25])


def test_ill_behaved_curves_are_refused() -> None:
    """Fewer than five sizes or three seeds, a rise that seeds support; noise is no rise."""
    rng = np.random.default_rng(2)
    log_error = np.log(3 * N**-0.5) + 0.05 * rng.normal(size=(6, len(N)))
    assert power_law.why_not(SIZES, log_error) is None
    assert power_law.why_not(SIZES[:4], log_error[:, :4]) == Refusal("few_sizes", n=4)
    assert power_law.why_not(SIZES, log_error[:2]) == Refusal("few_seeds", n=2)
    log_error[:, 3] += 1.0
    assert power_law.why_not(SIZES, log_error) == Refusal("rises", smaller=256, larger=512)
    noise = np.log(0.1) + 0.1 * rng.normal(size=(6, len(N)))
    assert power_law.why_not(SIZES, noise) == Refusal("flat", smaller=64, larger=2048)
    flat = np.log(0.1) + 0.1 * rng.normal(size=(200, 6, len(N)))
    refused = sum(power_law.rise(one) is not None for one in flat)
    assert refused <= 12  # 2.5 % by design, and less for dependent pairs


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (
            Refusal("few_sizes", n=1),
            "more than guessing is learned at 1 size, and a curve needs 5.",
        ),
        (Refusal("few_seeds", n=2), "2 seeds give no interval; 3 do."),
        (Refusal("rises", smaller=256, larger=1024), "its error rises from 256 to 1,024 images"),
        (Refusal("flat", smaller=64, larger=2048), "do not tell that its error falls from 64 to"),
    ],
)
def test_refusals_in_words(
    found: Results, refusal: Refusal, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No law is named, nothing is foretold, and the reason is given."""
    monkeypatch.setattr(findings, "fits_of", lambda opened: {"": refusal})
    told = {one.kind: one for one in findings.findings(found)}
    assert not {"size_law", "size_needed", "size_doubling"} & set(told)
    assert words in sentence(told["size_no_law"])


def test_each_seed_has_the_rate_that_the_others_choose(found: Results) -> None:
    """The curve is at its own best rates; one rate for all is dearer where it is not the best."""
    (curve,) = curves_of(found)
    assert curve.sizes == (32, 64, 128, 256, 512, 1024) and curve.rates == (0.001, 0.01)
    assert curve.best_N == (0, 0, 1, 1, 1, 1) and curve.agree_N == (6,) * 6
    one = found.trials.query("train_images == 256 and lr == 0.01").sort_values("seed")
    np.testing.assert_allclose(curve.error_SN[:, 3], 1 - one["test_accuracy"])
    cost = drawn.rates_data(found)
    assert cost is not None
    dear = cost["cost"] > 0.3
    assert dear.sum() == 2 and (cost.loc[~dear, "cost"].abs() < 1e-9).all()


def test_what_is_said_of_a_known_curve(found: Results) -> None:
    """Every sentence of the topic, with its numbers."""
    told = {one.kind: one for one in findings.findings(found)}
    assert list(told) == [
        "size_curve", "size_steps", "size_rates", "size_law", "size_needed", "size_doubling",
    ]  # fmt: skip
    words = {kind: sentence(one) for kind, one in told.items()}
    assert told["size_steps"].asserts and told["size_rates"].asserts
    assert words["size_steps"].startswith(
        "The test error falls at each step from 32 to 1,024 images ("
    )
    assert "is 0.001 at 32 to 64, 0.01 at 128 to 1,024 images" in words["size_rates"]
    assert "Fitted without the 1,024 images, it foretells" in words["size_law"]
    assert told["size_law"].effect == pytest.approx(0.0, abs=0.05)
    needed = told["size_needed"]
    assert needed.low is not None and needed.high is not None
    assert needed.effect == pytest.approx((2 / (0.2 - 0.02)) ** 2, rel=0.03)  # by the law, 123
    assert needed.low < needed.effect < needed.high and "accuracy of 0.8" in words["size_needed"]
    assert {one.kind for one in findings.limits(found)} == {"limit_size_length", "limit_size_law"}
    assert "12 updates" in sentence(findings.limits(found)[0])
    assert (
        "equal updates (12)" in found.subtitle and "32 to 1,024 training images" in found.subtitle
    )
    made = summary.summarise(found)
    assert not any(one.kind == "limit_one_subset" for one in made.limits)
    # An epoch of few images is not one of many, so times are not compared.
    assert not any(one.kind.startswith("target_") for one in made.findings)


def test_nothing_is_said_beyond_four_times_the_largest_size(found: Results) -> None:
    """A target that would take more images is not extrapolated to."""
    far = Results(found.folder, found.trials, found.epochs, found.sweep, found.environment, 0.97)
    (needed,) = [one for one in findings.findings(far) if one.kind == "size_needed"]
    assert needed.effect is None and needed.high is None
    assert "needs more than 4,096 images, 4 times the largest number here" in sentence(needed)


def test_claims_against_a_number(found: Results) -> None:
    """At the rate that the other seeds choose, or at the mean over rates."""
    verdicts = {v.claim.id: v for v in summary.summarise(found).claims}
    curve = curves_of(found)[0]
    enough = verdicts["enough"]
    assert enough.verdict == "supported" and enough.n == 6
    assert enough.effect == pytest.approx(1 - curve.error_SN[:, 3].mean() - 0.3)
    assert verdicts["averaged"].effect < enough.effect
    assert verdicts["too_much"].verdict == "refuted"


def test_models_with_their_own_rates_cross(tmp_path: Path) -> None:
    """Two models, one of which lacks a rate and a size; where they cross is said and drawn."""
    text = SWEEP.replace("    lr:", "    optimizer: [radam, sgd]\n    lr:")

    def error(images: int, lr: float, seed: int, optimizer: str) -> float:
        noise = 1 + 0.03 * math.sin(7 * seed + images + 50 * lr + len(optimizer))
        return noise * (4.0 * images**-0.6 if optimizer == "radam" else 1.2 * images**-0.35)

    made = results.load(result_folder.make(tmp_path / "run", text, lambda trial: 0.1))
    trials = made.trials
    trials = trials[~((trials["optimizer"] == "sgd") & (trials["lr"] == 0.01))]
    trials = trials[~((trials["optimizer"] == "sgd") & (trials["train_images"] == 512))].copy()
    rows = trials[["train_images", "lr", "seed", "optimizer"]].itertuples(index=False)
    trials["test_accuracy"] = [1 - error(*row) for row in rows]
    trials["val_loss"] = trials["test_loss"] = 1 - trials["test_accuracy"]
    trials["initial_val_loss"] = math.log(10)
    made = Results(made.folder, trials, made.epochs, made.sweep, made.environment)
    radam, sgd = curves_of(made)
    assert (radam.rates, sgd.rates) == ((0.001, 0.01), (0.001,)) and len(sgd.sizes) == 5
    (one,) = [f for f in findings.findings(made) if f.kind == "size_crossing"]
    place = (4.0 / 1.2) ** (1 / 0.25)  # 123
    assert one.arms == ("optimizer sgd", "optimizer radam") and one.asserts
    assert one.low is not None and one.high is not None and one.low < place < one.high
    assert one.effect == pytest.approx(place, rel=0.15)
    assert sentence(one).startswith("Optimizer sgd leads below and optimizer radam above 1")
    four = trials[trials["seed"] < 4]  # too few to tell anything apart
    few = Results(made.folder, four, made.epochs, made.sweep, made.environment)
    (lead,) = [f for f in findings.findings(few) if f.kind == "size_lead"]
    assert not lead.asserts and "described, not claimed" in sentence(lead)
    assert lead.facts["cross"]["at"] == pytest.approx(place, rel=0.15)  # type: ignore[index]
    kinds = [f.kind for f in findings.findings(made)]
    assert kinds.count("size_law") == 2 and kinds.count("size_rates") == 1
    for spec in drawn.FIGURES:
        data = spec.data(made)
        assert data is not None and spec.draw(data, "title").axes and sentence(spec.describe(data))


def test_sweeps_without_sizes_say_nothing_of_them(reported: Path) -> None:
    """Neither findings nor figures nor a section of the report."""
    grid = results.load(reported)
    assert findings.findings(grid) == [] == findings.limits(grid)
    assert drawn.curves_data(grid) is None and drawn.table(grid).empty
    assert 'id="sizes"' not in (reported / report.NAME).read_text(encoding="utf-8")


def test_figures_redraw_from_their_numbers_and_tables_are_latex(found: Results) -> None:
    """From the results folder to three figures, a section of the page and tables for a paper."""
    folder = found.folder
    made_now = figure_spec.draw(drawn.FIGURES, found, found.subtitle, folder / "figures")
    page = report.write(found, made_now).read_text(encoding="utf-8")
    assert 'id="sizes"' in page
    for spec in drawn.FIGURES:
        csv = folder / "figures" / f"{spec.name}.csv"
        assert sentence(spec.describe(figures.read(csv))) in page
        assert figures.redraw(csv).axes
    assert __main__.main([str(folder), "--latex"]) == 0
    made = {path.stem: path.read_text() for path in (folder / "latex").iterdir()}
    assert {"claims", "data_size", "pairs", "trials", "budget"} <= set(made)
    # The folder's own accuracies are all the same, and such a curve has no law.
    assert "data_size_law" not in made
    of_sizes = [path.read_text() for path in latex.write(found, latex.of_sizes(found))]
    assert len(of_sizes) == 2 and "foretold" in of_sizes[1]
    made["data_size_law"] = of_sizes[1]
    table = made["data_size"]
    assert table.count("\\\\\n") == 7 and "\\toprule" in table and "1,024" in table
    for text in made.values():
        assert "_" not in re.sub(r"\\label{[^}]+}", "", text).replace("\\_", "")
        assert text.count("{") == text.count("}")
