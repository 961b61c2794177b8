"""The comparison of labels on tables whose truth is known: a rare label that is not easy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import result_folder

from vitbench.analysis import results, summary
from vitbench.analysis.findings.render import sentence
from vitbench.analysis.labels import figures as label_figures
from vitbench.analysis.labels import numbers as labels
from vitbench.analysis.labels import words as label_words
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
    said = " ".join(label_words.findings(found))
    assert "not a ranking of difficulty" in said
    assert "harder at p < 0.05" in said
    assert "Eyeglasses than Smiling" in said


def test_pairs_are_by_seed(found: results.Results) -> None:
    """Six pairs, the difference of the means, and the least p that six pairs can give."""
    table = labels.pairs(labels.chosen(found))
    row = table[(table["arm"] == "Eyeglasses") & (table["against"] == "Smiling")].iloc[0]
    assert row["pairs"] == 6
    assert row["difference"] == pytest.approx(0.4, abs=0.02)
    assert row["p"] == pytest.approx(2 / 2**6)


def test_the_report_compares_labels_and_no_raw_losses(found: results.Results) -> None:
    """No sentence calls a label the best setting; the section and its figures are there."""
    written = report.draw_and_write(found.folder)
    names = {path.name for path in written}
    assert {"label_curves.png", "label_difficulty.png", "label_difficulty.csv"} <= names
    page = written[-1].read_text(encoding="utf-8")
    assert "<h2>Label difficulty</h2>" in page
    assert "settings the best is" not in page
    assert "not photographed" in page
    limits = summary.summarise(found).limits
    assert any("train.matched" in sentence(limit) for limit in limits)


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
    assert "matched control" in label_words.findings(found)[0]
    assert not any("train.matched" in text for text in label_words.limits(found))


def test_one_label_compares_nothing(tmp_path: Path) -> None:
    """A sweep of one label has rows of it, and no comparison."""
    text = SWEEP.replace("label: [Eyeglasses, Smiling, Wavy_Hair]\n    lr", "lr").replace(
        "epochs: 4,", "epochs: 4, label: Smiling,"
    )
    found = results.load(result_folder.make(tmp_path / "r", text, loss, labels=rows))
    assert len(found.labels) == 12
    assert labels.chosen(found).empty
    assert label_words.findings(found) == []


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
    said = label_words.findings(found)
    assert said[0].startswith("Corrected for base rate") and "The order" not in said[0]
    assert "<h2>Label difficulty</h2>" in report.draw_and_write(made)[-1].read_text()
