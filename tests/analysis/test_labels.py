"""The comparison of labels on tables whose truth is known: a rare label that is not easy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import result_folder

from vitbench.analysis import notebook, results, summary
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.render import sentence
from vitbench.analysis.labels import figures as label_figures
from vitbench.analysis.labels import findings as label_findings
from vitbench.analysis.labels import numbers as labels
from vitbench.analysis.report import report
from vitbench.plan import TrialConfig

SWEEP = """
name: made
dataset: {name: faces, image_size: 32, labels: [Eyeglasses, Smiling, Wavy_Hair]}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 4, batch_size: 64, train_images: 1000, val_images: 1000, test_images: 1000}
search:
  space:
    label: [Eyeglasses, Smiling, Wavy_Hair]
    lr: [0.001, 0.01]
    seed: [0, 1, 2, 3, 4, 5]
"""
POSITIVES = {"Eyeglasses": 65, "Smiling": 480, "Wavy_Hair": 320}
# Share of the constant's cross entropy that is left: Eyeglasses has the lowest loss and is hardest.
LEFT = {"Eyeglasses": 0.9, "Smiling": 0.5, "Wavy_Hair": 0.7}


def constant(label: str) -> float:
    p = POSITIVES[label] / 1000
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def loss(trial: TrialConfig) -> float:
    label, seed = str(trial.train.label), trial.train.seed
    # Smiling prefers another learning rate than the others do.
    off = trial.train.lr != (0.01 if label == "Smiling" else 0.001)
    return constant(label) * (LEFT[label] + 0.08 * off + 0.004 * math.sin(5 * seed))


def rows(trial: TrialConfig) -> list[dict[str, Any]]:
    label = str(trial.train.label)
    counts = {f"{split}_images": 1000 for split in ("train", "val", "test")}
    positives = {f"{split}_positives": POSITIVES[label] for split in ("train", "val", "test")}
    quality = {"roc_auc": 0.9, "average_precision": 0.6, "mcc": 0.5, "balanced_accuracy": 0.7}
    base = {"label": label, **counts, **positives, **quality, "test_accuracy": 0.9}
    return [{**base, "test_bce": loss(trial)}]


@pytest.fixture
def found(tmp_path: Path) -> results.Results:
    return results.load(result_folder.make(tmp_path / "r", SWEEP, loss, labels=rows))


def test_columns_of_the_table_by_hand(found: results.Results) -> None:
    """Base rates, the constant's cross entropy and what is left of it, and chance-corrected AP."""
    first = found.labels[found.labels["label"] == "Eyeglasses"].iloc[0]
    p = 0.065
    assert first["test_base_rate"] == pytest.approx(p)
    assert first["constant_bce"] == pytest.approx(constant("Eyeglasses"))
    assert first["nce"] == pytest.approx(first["test_bce"] / constant("Eyeglasses"))
    assert first["rig"] == pytest.approx(1 - first["nce"])
    assert first["ap_norm"] == pytest.approx((0.6 - p) / (1 - p))
    assert first["majority_rate"] == pytest.approx(1 - p)


def test_learning_curve_columns_by_hand(found: results.Results) -> None:
    """ALC is the mean gain over epochs; learned is a gain of 0.25 or more two epochs in a row."""
    for row in found.labels.to_dict("records"):
        curve = found.epochs[found.epochs["trial_id"] == row["trial_id"]]
        gains = (1 - curve["val_loss"] / constant(row["label"])).tolist()
        assert row["alc"] == pytest.approx(sum(gains) / 4)
        pairs = [n + 1 for n in range(3) if min(gains[n : n + 2]) >= 0.25]
        assert row["reached"] == bool(pairs)
        if pairs:
            assert row["epochs_to_target"] == pairs[0]
        else:
            assert pd.isna(row["epochs_to_target"])
    assert set(found.labels["reached"]) == {True, False}


def test_each_label_at_its_own_learning_rate(found: results.Results) -> None:
    """The best rate by validation loss, every seed once."""
    chosen = labels.chosen(found)
    assert chosen.groupby("label")["lr"].unique().map(list).to_dict() == {
        "Eyeglasses": [0.001],
        "Smiling": [0.01],
        "Wavy_Hair": [0.001],
    }
    assert chosen.groupby("label")["seed"].nunique().tolist() == [6, 6, 6]


def test_raw_and_corrected_orders_differ(found: results.Results) -> None:
    """By raw loss Eyeglasses is the easiest; corrected for its base rate it is the hardest."""
    table = labels.summary(labels.chosen(found))
    assert labels.order(table, "train_loss")[0] == "Eyeglasses"
    assert labels.order(table, "nce") == ["Smiling", "Wavy_Hair", "Eyeglasses"]
    # Raw order E W S or so, corrected S W E: count the pairs by hand.
    raw = labels.order(table, "train_loss")
    right = sum(
        (raw.index(a) < raw.index(b))
        for a, b in (("Smiling", "Wavy_Hair"), ("Smiling", "Eyeglasses"),
                     ("Wavy_Hair", "Eyeglasses"))
    )  # fmt: skip
    assert labels.agreement(table, "nce", "train_loss") == pytest.approx((2 * right - 3) / 3)


def of_kind(found: results.Results, kind: str) -> list[Finding]:
    return [finding for finding in label_findings.findings(found) if finding.kind == kind]


def test_orders_are_claimed_step_by_step(found: results.Results) -> None:
    """Base rate turns the order round before the split changes; the split then changes nothing."""
    orders = {finding.metric: finding for finding in of_kind(found, "label_order")}
    assert list(orders) == ["train_loss", "train_loss_over_constant", "nce"]
    assert all(finding.asserts for finding in orders.values())
    assert orders["nce"].arms == ("Smiling", "Wavy_Hair", "Eyeglasses")
    (turned,) = of_kind(found, "label_order_turns")
    assert turned.metric == "train_loss_over_constant" and turned.asserts
    assert "turns round" in sentence(turned)
    harder = [finding.arms for finding in of_kind(found, "label_is_harder")]
    assert sorted(harder) == [
        ("Eyeglasses", "Smiling"), ("Eyeglasses", "Wavy_Hair"), ("Wavy_Hair", "Smiling"),
    ]  # fmt: skip
    assert all(sentence(finding) for finding in label_findings.findings(found))


@pytest.mark.parametrize(("seeds", "smallest"), [("0", "1"), ("0, 1, 2", "0.25")])
def test_few_seeds_and_a_thousandth_are_no_order(tmp_path: Path, seeds: str, smallest: str) -> None:
    """Orders of means are printed and not asserted; nothing is said to turn round."""
    text = SWEEP.replace("seed: [0, 1, 2, 3, 4, 5]", f"seed: [{seeds}]")
    found = results.load(result_folder.make(tmp_path / "r", text, loss, labels=rows))
    told = label_findings.findings(found)
    assert [f.kind for f in told].count("label_order") == 3
    assert not any(finding.asserts for finding in told)
    assert f"smallest possible p is {smallest})" in sentence(told[0])


def folder_with(
    tmp_path: Path, gone: Callable[[TrialConfig], bool], until: int | None = None
) -> results.Results:
    """Results in which some models diverged at once."""

    def end(trial: TrialConfig) -> float:
        return math.nan if gone(trial) else loss(trial)

    def scored(trial: TrialConfig) -> list[dict[str, Any]]:
        return [{**row, "test_bce": loss(trial)} for row in rows(trial)]

    made = result_folder.make(tmp_path / "r", SWEEP, end, labels=scored, until=until)
    return results.load(made)


def test_a_lone_survivor_is_not_chosen(tmp_path: Path) -> None:
    """Of six seeds at Smiling's better rate one is left: the other rate is the label's best."""
    found = folder_with(
        tmp_path,
        lambda t: t.train.label == "Smiling" and t.train.lr == 0.01 and t.train.seed > 0,
    )
    chosen = labels.chosen(found)
    assert chosen[chosen["label"] == "Smiling"]["lr"].unique().tolist() == [0.001]
    assert chosen.groupby("label")["seed"].nunique().tolist() == [6, 6, 6]
    assert not of_kind(found, "labels_diverged")


def test_a_label_that_diverged_everywhere_is_the_hardest(tmp_path: Path) -> None:
    """It stays in the ranking at the loss before training, and is named."""
    found = folder_with(tmp_path, lambda trial: trial.train.label == "Smiling")
    chosen = labels.chosen(found)
    smiling = chosen[chosen["label"] == "Smiling"]
    assert smiling["nce"].tolist() == pytest.approx([2.3 / constant("Smiling")] * 6)
    assert labels.order(labels.summary(chosen), "nce")[-1] == "Smiling"
    (gone,) = of_kind(found, "labels_diverged")
    assert gone.facts["of"] == {"Smiling": 6}
    assert label_figures.curves_data(found) is not None


def test_an_arm_without_all_its_seeds_is_not_chosen(tmp_path: Path) -> None:
    """A label none of whose settings came to an end is named and not ranked."""
    found = folder_with(tmp_path, lambda trial: False, until=2 * 12 + 2)
    assert set(labels.chosen(found)["label"]) == {"Eyeglasses", "Smiling"}
    (lacking,) = of_kind(found, "labels_incomplete")
    assert lacking.arms == ("Wavy_Hair",)


def test_labels_are_ranked_by_the_excess_over_the_floor(tmp_path: Path) -> None:
    """A rare label whose loss is nearly all noise is the easiest, whatever its NCE says.

    The tables are of an earlier version: matched, without the rate that was matched from.
    """
    text = SWEEP.replace("epochs: 4,", "epochs: 4, matched: 50,")

    def half(trial: TrialConfig) -> list[dict[str, Any]]:
        positives = {f"{split}_positives": 500 for split in ("train", "val", "test")}
        left = {"Eyeglasses": 0.55, "Smiling": 0.5, "Wavy_Hair": 0.6}[str(trial.train.label)]
        bce = math.log(2) * (left + 0.004 * math.sin(5 * trial.train.seed))
        return [{**row, **positives, "test_bce": bce} for row in rows(trial)]

    found = results.load(result_folder.make(tmp_path / "r", text, loss, labels=half))
    found.environment.update(label_noise=0.02)
    found.sweep["dataset"]["name"] = "faces"
    chosen = labels.chosen(found)
    assert labels.headline(chosen).column == "excess"
    table = labels.summary(chosen)
    assert labels.order(table, "nce") == ["Smiling", "Eyeglasses", "Wavy_Hair"]
    assert labels.order(table, "excess") == ["Eyeglasses", "Smiling", "Wavy_Hair"]
    (limit,) = [f for f in label_findings.limits(found) if f.kind == "limit_noise"]
    assert "Eyeglasses: 0.505, Smiling: 0.142, Wavy_Hair: 0.166" in sentence(limit)
    assert "Eyeglasses 29%" in sentence(limit)


def test_an_unknown_rate_gives_no_floor(tmp_path: Path) -> None:
    """Matched, with flips of another rate than the documented one: NCE is compared, and said so."""
    text = SWEEP.replace("epochs: 4,", "epochs: 4, matched: 50,")
    found = results.load(result_folder.make(tmp_path / "r", text, loss, labels=rows))
    found.environment.update(label_noise=0.1)
    chosen = labels.chosen(found)
    assert chosen["floor"].isna().all() and labels.headline(chosen).column == "nce"
    (limit,) = [f for f in label_findings.limits(found) if f.kind == "limit_noise"]
    assert "no noise floor can be given" in sentence(limit)


def test_pairs_are_by_seed(found: results.Results) -> None:
    """Six pairs, the difference of the means, and the least p that six pairs can give."""
    tested = label_findings.pairs_of(found)[labels.headline(labels.chosen(found))]
    pairs = {(pair.a, pair.b): pair for pair in tested}
    pair = pairs["Eyeglasses", "Smiling"]
    assert pair.difference.n == 6
    assert pair.difference.mean == pytest.approx(0.4, abs=0.02)
    assert pair.p == pair.p_adjusted == pytest.approx(2 / 2**6)
    # A notebook prints these very pairs, with the p of the findings' own family.
    assert notebook.paired(found)["p_adjusted"].tolist() == [pair.p_adjusted for pair in tested]


def test_the_report_compares_labels_and_no_raw_losses(found: results.Results) -> None:
    """No sentence calls a label the best setting; the section and its figures are there."""
    written = report.draw_and_write(found.folder)
    names = {path.name for path in written}
    assert {"label_curves.png", "label_difficulty.png", "label_difficulty.csv"} <= names
    page = written[-1].read_text(encoding="utf-8")
    assert "<h2>Label difficulty</h2>" in page
    assert "<th>floor</th>" not in page, "it is not known how many labels are wrong"
    assert "settings the best is" not in page
    assert "The faces are drawn" in page
    limits = summary.summarise(found).limits
    assert any("train.matched" in sentence(limit) for limit in limits)


def test_the_report_shows_the_noise_floor_where_it_is_known(found: results.Results) -> None:
    """Beside the NCE, what of it nobody could know, and what is left above that."""
    environment = found.folder / "environment.json"
    known = json.loads(environment.read_text()) | {"label_noise": 0.02}
    environment.write_text(json.dumps(known))
    page = report.draw_and_write(found.folder)[-1].read_text(encoding="utf-8")
    assert "<th>floor</th><th>excess</th>" in page


def test_figures_have_a_row_for_each_label_and_measure(found: results.Results) -> None:
    """What is drawn: every seed of every label, beside what costs nothing to know."""
    data = label_figures.difficulty_data(found)
    assert data is not None
    counts = data.groupby(["measure", "label"])["seed"].nunique()
    assert set(counts) == {6}
    raw = data[(data["measure"] == "train_loss") & (data["label"] == "Smiling")]
    assert raw["chance"].iloc[0] == pytest.approx(constant("Smiling"))


def test_matched_labels_are_the_headline(tmp_path: Path) -> None:
    """With the control the sentence says so, and the warning about base rates is gone."""
    text = SWEEP.replace("epochs: 4,", "epochs: 4, matched: 50,")
    found = results.load(result_folder.make(tmp_path / "r", text, loss, labels=rows))
    first = label_findings.findings(found)[0]
    assert "50 training images with and as many without each label" in sentence(first)
    assert "train_loss_over_constant" not in {f.metric for f in label_findings.findings(found)}
    assert "limit_base_rates" not in {limit.kind for limit in label_findings.limits(found)}


def test_one_label_compares_nothing(tmp_path: Path) -> None:
    """A sweep of one label has rows of it, and no comparison."""
    text = SWEEP.replace("label: [Eyeglasses, Smiling, Wavy_Hair]\n    lr", "lr").replace(
        "epochs: 4,", "epochs: 4, label: Smiling,"
    )
    found = results.load(result_folder.make(tmp_path / "r", text, loss, labels=rows))
    assert len(found.labels) == 12
    assert labels.chosen(found).empty
    assert label_findings.findings(found) == []


def test_models_of_all_labels_have_no_raw_ranking(tmp_path: Path) -> None:
    """Their training loss is one number for all labels; the corrected ranking stands alone."""
    text = SWEEP.replace("    label: [Eyeglasses, Smiling, Wavy_Hair]\n", "")

    def each(trial: TrialConfig) -> list[dict[str, Any]]:
        found = []
        for label in POSITIVES:
            train = trial.train.model_copy(update={"label": label})
            found += rows(trial.model_copy(update={"train": train}))
        return found

    def mean(trial: TrialConfig) -> float:
        return 0.4 + 0.01 * trial.train.seed

    made = result_folder.make(tmp_path / "r", text, mean, labels=each)
    found = results.load(made)
    assert set(found.labels["task"]) == {"all labels"}
    assert [f.metric for f in of_kind(found, "label_order")] == ["nce"]
    assert "<h2>Label difficulty</h2>" in report.draw_and_write(made)[-1].read_text()
