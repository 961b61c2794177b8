"""Maps and scores of models that learned labels: a model of each label, and models of all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sweep_runs
import torch

from vitbench.analysis import results
from vitbench.analysis.attention import findings as attention_findings
from vitbench.attention import scores as attention_scores
from vitbench.attention.__main__ import main
from vitbench.attention.export import shared_images
from vitbench.attention.maps import compute
from vitbench.attention.subject import open_images, open_subject
from vitbench.training.checkpoint import load_member

pytestmark = [pytest.mark.long, pytest.mark.ray]

LABELS = """
name: labels
dataset: {name: faces, count: 300, image_size: 16, labels: [Smiling, Wavy_Hair]}
model: {patch_grid: 4, depth: 1, heads: 2, width: 16, mlp: 16}
train: {epochs: 2, batch_size: 32, train_images: 100}
search: {space: {seed: [0, 1]}}
attention: {top: 2, images: 8}
stack_size: 4
resources: {cpus: 1.5}  # one process trains all: each begins with seconds of imports
"""


@pytest.fixture(scope="module")
def of_labels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two sweeps on faces: a model per label, and models of both labels, one of them a CNN."""
    base = tmp_path_factory.mktemp("labels")
    found = {}
    vit = "model: {patch_grid: 4, depth: 1, heads: 2, width: 16, mlp: 16}"
    cnn = "cnn: {build: 'vitbench.model.baselines:cnn', args: {width: 4}}"
    both = LABELS.replace(vit, f"models: {{{vit.replace('model', 'vit')}, {cnn}}}")
    for name, text in (
        ("alone", LABELS.replace("seed: [0, 1]", "seed: [0, 1], label: [Smiling, Wavy_Hair]")),
        ("together", both.replace("seed: [0, 1]", "model: [vit, cnn]")),
    ):
        file = base / f"{name}.yaml"
        file.write_text(text)
        code, output = sweep_runs.sweep_here(
            str(file), "--out", str(base / name), draws=name == "alone"
        )
        assert code == 0, output
        (found[name],) = (base / name / "labels").iterdir()
    return found


def test_every_label_has_its_plate(of_labels: dict[str, Path]) -> None:
    """The best trial of each label, though the losses of one label may all be lower."""
    folder = of_labels["alone"]
    rows = pd.read_parquet(folder / "attention" / "attention.parquet")
    assert set(rows["label"]) == {"Smiling", "Wavy_Hair"}
    assert set(rows["truth"]) == {"Smiling", "not Smiling", "Wavy_Hair", "not Wavy_Hair"}
    for trial_id in rows["trial_id"].unique():
        assert (folder / "attention" / f"plate_{trial_id}.png").is_file()
        part = rows[(rows["trial_id"] == trial_id) & (rows["method"] == "last")]
        assert len(part) == 8
        assert part["truth"].value_counts().tolist() == [4, 4]  # half with the label
    assert {"eyes_lift", "mouth_lift", "hair_band_lift", "eye_corners_lift"} <= set(rows.columns)


def test_a_model_of_all_labels_is_seen_through_each(of_labels: dict[str, Path]) -> None:
    """One plate per label of each model; the ViT's predictions are that output's."""
    folder = of_labels["together"]
    found = results.load(folder)
    ids = found.trials.set_index("model")["trial_id"]
    for trial_id in ids:
        for label in ("Smiling", "Wavy_Hair"):
            assert (folder / "attention" / f"plate_{trial_id}_{label}.png").is_file()
    best = ids["vit"]
    images = open_images(found, None)
    subject = open_subject(found, str(best), images, "Wavy_Hair")
    whole, _ = load_member(folder / str(found.trials.set_index("trial_id").loc[best, "checkpoint"]))
    pixels = subject.normalised(images.test.images[:5])
    with torch.no_grad():
        expected = whole(pixels.unsqueeze(0))[0, :, 1]
        torch.testing.assert_close(subject.model(pixels.unsqueeze(0))[0, :, 0], expected)


def test_a_cnn_of_all_labels_is_seen_by_its_input_gradients(
    of_labels: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of each label: scores with every control, half of the images with it, words in the report."""
    folder = of_labels["together"]
    ids = results.load(folder).trials.set_index("model")["trial_id"]
    rows = pd.read_parquet(folder / "attention" / "attention.parquet")
    rows = rows[rows["trial_id"] == ids["cnn"]]
    assert set(rows["method"]) == {"input_gradient"}
    summary = pd.read_csv(folder / "attention" / "attention_summary.csv")
    for label, part in rows.groupby("label"):
        assert part["truth"].value_counts().to_dict() == {label: 4, f"not {label}": 4}
        scored = summary[(summary["trial_id"] == ids["cnn"]) & (summary["label"] == label)]
        controls = ("", "_uniform", "_untrained", "_other_image", "_mean_map")
        wanted = {f"eyes_lift{control}" for control in controls} | {"deletion", "insertion"}
        assert wanted <= set(scored["score"])
    assert set(rows["label"]) == {"Smiling", "Wavy_Hair"}
    spread = pd.read_csv(folder / "attention" / "spread.csv")
    assert set(spread["trial_id"]) == {ids["vit"]}, "it has no attention to be spread"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Model cnn shows no attention." in page
    for label in ("Smiling", "Wavy_Hair"):
        assert f"Input gradient of model cnn, label {label}" in page
    arguments = [str(folder), "--trial", ids["cnn"], "--label", "Wavy_Hair", "--images", "4"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "label Wavy_Hair" in said and "this model shows no attention" in said


def test_the_spread_of_every_trial_is_recorded(of_labels: dict[str, Path]) -> None:
    """All four models on the same images, with the patches and lifts that their own maps have."""
    folder = of_labels["alone"]
    spread = pd.read_csv(folder / "attention" / "spread.csv").set_index("trial_id")
    assert len(spread) == 4
    assert spread["images"].nunique() == 1
    found = results.load(folder)
    images = open_images(found, None)
    by_label = found.trials.drop_duplicates("label")["trial_id"]
    subjects = [open_subject(found, str(trial_id), images) for trial_id in by_label]
    drawn = shared_images(subjects, 8, 0)
    own = [set(subject.drawn(4, 0)) for subject in subjects]
    assert set(drawn) == own[0] | own[1]
    for trial_id in spread.index:
        subject = open_subject(found, str(trial_id), images)
        shown = images.test.take(drawn)
        maps = compute(subject.model, subject.normalised(shown.images)).by_method["last"]
        widths = attention_scores.effective_patches(maps)
        assert spread.loc[trial_id, "effective_patches"] == pytest.approx(widths.mean())
        masks = [
            attention_scores.landmark_regions(marks.astype(float), 16)["eyes"]
            for marks in shown.landmarks
        ]
        cover = attention_scores.patch_cover(np.stack(masks), 4)
        lift = attention_scores.lift(maps, cover).mean()
        assert spread.loc[trial_id, "eyes_lift"] == pytest.approx(lift)
    assert (folder / "figures" / "attention_spread.png").is_file()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Where it looks" in page and "2 labels are the units" in page and "hair band" in page
    (looks,) = attention_findings.looks(attention_findings.lifts(found))
    assert looks.kind == "looks_unclear" and looks.n == 2


def test_the_label_on_the_command_line(
    of_labels: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """--label takes a trial of that label, or that output of a model of all labels."""
    for folder in of_labels.values():
        assert main([str(folder), "--label", "Wavy_Hair", "--images", "4"]) == 0
        assert "eyes" in capsys.readouterr().out
    assert main([str(of_labels["alone"]), "--label", "Bald"]) == 2
    assert "no trial with label Bald" in capsys.readouterr().err


def test_sweeps_of_labels_write_their_table(of_labels: dict[str, Path]) -> None:
    """A row per model and label; a model of all labels has one for each, without a curve."""
    alone, together = (
        pd.read_parquet(of_labels[name] / "labels.parquet") for name in ("alone", "together")
    )
    assert (len(alone), len(together)) == (4, 4), "four models of a label, two models of two"
    assert set(alone["task"]) == {"one label"} and set(together["task"]) == {"all labels"}
    assert alone["alc"].notna().all() and together["alc"].isna().all()
    assert set(alone["dataset"]) == {"faces"}
    trials = pd.read_parquet(of_labels["alone"] / "trials.parquet").set_index("trial_id")
    for row in alone.to_dict("records"):
        assert row["test_bce"] == pytest.approx(trials.loc[row["trial_id"], "best_test_loss"])
    # Both sweeps judge on the same images, whatever else differs.
    assert set(alone["test_positives"]) == set(together["test_positives"])
