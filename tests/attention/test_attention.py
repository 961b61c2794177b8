"""Maps and scores of trained models: a planted patch is found, controls stay at chance."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sweep_runs
import torch
from PIL import Image

from vitbench.analysis import results
from vitbench.analysis.attention import findings as attention_findings
from vitbench.attention import scores as attention_scores
from vitbench.attention.__main__ import main
from vitbench.attention.export import shared_images, summarise
from vitbench.attention.maps import compute, faithfulness
from vitbench.attention.subject import open_images, open_subject
from vitbench.config import Dataset, Model, Train, TrialConfig
from vitbench.data.image_set import ImageSet, Split
from vitbench.model.vit import StackedVit
from vitbench.plan import StackPlan
from vitbench.storage.checkpoints import Checkpoints
from vitbench.storage.place import Place
from vitbench.training.checkpoint import load_member
from vitbench.training.engine import fit

GRID, SIDE = 4, 16


def planted(count: int, seed: int) -> tuple[Split, np.ndarray]:
    """Noise in which one random patch is bright; its stripes tell the class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, 1, SIDE, SIDE), dtype=np.uint8)
    targets = rng.integers(0, 2, count)
    place = rng.integers(0, GRID * GRID, count)
    patch_px = SIDE // GRID
    stripes = np.zeros((2, patch_px, patch_px), dtype=np.uint8)
    stripes[0, ::2], stripes[1, :, ::2] = 255, 255
    cover = np.zeros((count, GRID * GRID))
    cover[np.arange(count), place] = 1
    for image, target, where in zip(images, targets, place, strict=True):
        y, x = divmod(int(where), GRID)
        image[0, y * patch_px :, x * patch_px :][:patch_px, :patch_px] = stripes[target]
    return Split(images, targets.astype(np.int64)[:, None]), cover


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[StackedVit, torch.Tensor, np.ndarray]:
    """A model that solves the planted task, unseen images and where their patches are."""
    (train, _), (val, _), (test, cover) = (planted(n, s) for s, n in enumerate((600, 100, 200)))
    images = ImageSet(
        name="planted",
        train=train,
        val=val,
        test=test,
        classes=("rows", "columns"),
        labels=("rows", "columns"),
        mean=(0.15,),
        std=(0.2,),
        checksum="0" * 64,
        source="noise with a planted patch",
    )
    trial = TrialConfig(
        dataset=Dataset(name="digits", image_size=SIDE),
        model=Model(patch_grid=GRID, depth=2, heads=2, width=32, mlp=64),
        train=Train(epochs=25, batch_size=32, lr=0.002, optimizer="adamw"),
    )
    folder = tmp_path_factory.mktemp("planted")
    torch.set_num_threads(1)
    result = fit(
        StackPlan((trial,)),
        images,
        device=torch.device("cpu"),
        report=lambda epoch: True,
        store=Checkpoints(Place(str(folder))),
    )
    assert (result.trials[0].best_test_accuracy or 0) > 0.97
    model, _ = load_member(folder / str(result.trials[0].checkpoint))
    pixels = (torch.from_numpy(np.asarray(test.images)).float() / 255 - 0.15) / 0.2
    return model, pixels, cover


def test_the_planted_patch_is_found(
    trained: tuple[StackedVit, torch.Tensor, np.ndarray],
) -> None:
    """Lift above 3 for the trained model, 1 +- 0.1 for an untrained one of the same shape."""
    model, pixels, cover = trained
    untrained = StackedVit(model.shape, 1)
    untrained.initialise([0])
    found = attention_scores.lift(compute(model, pixels).by_method["last"], cover).mean()
    before = attention_scores.lift(compute(untrained, pixels).by_method["last"], cover).mean()
    assert found > 3
    assert before == pytest.approx(1, abs=0.1)


def test_the_map_is_faithful_to_the_model(
    trained: tuple[StackedVit, torch.Tensor, np.ndarray],
) -> None:
    """Deleting what it looks at hurts more than deleting at random; a wrong map does not."""
    model, pixels, cover = trained
    pixels, cover = pixels[:60], cover[:60]
    maps = {
        "model": compute(model, pixels).by_method["last"],
        "wrong": (1 - cover) / (1 - cover).sum(axis=1, keepdims=True),
    }
    found = faithfulness(model, pixels, maps, seed=0)
    assert found["model"][0].mean() < -0.05 and found["model"][1].mean() > 0.05
    assert found["wrong"][0].mean() > 0


def test_margins_are_paired_with_another_images_region() -> None:
    """A model that always looks at the middle has a lift above 1 and no margin."""
    rows = pd.DataFrame(
        {
            "trial_id": "t",
            "label": None,
            "method": "last",
            "test_index": range(6),
            "ink_lift": [2.0, 2.1, 1.9, 2.0, 2.2, 1.8],
            "ink_lift_other_image": [2.1, 1.9, 2.0, 2.2, 1.8, 2.0],
        }
    )
    row = summarise(rows).set_index("score").loc["ink_lift"]
    assert row["low"] > 1.5
    assert row["margin_low"] < 0 < row["margin_high"]


@pytest.fixture(scope="module")
def folder(finished: sweep_runs.Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sweep that has ended, for commands that write into it."""
    return shutil.copytree(finished.folder, tmp_path_factory.mktemp("attention") / "run")


@pytest.mark.ray
def test_a_sweep_exports_the_plates_of_its_best_trials(finished: sweep_runs.Finished) -> None:
    """`attention: {top: 1}` leaves one plate; the report shows it."""
    assert len(list((finished.folder / "attention").glob("plate_*.png"))) == 1
    by_rate = pd.read_csv(finished.folder / "attention" / "maps_by_lr.csv")
    assert by_rate["lr"].nunique() == 2, "the third model diverged"
    assert "attention/plate_" in (finished.folder / "report.html").read_text()


@pytest.mark.ray
def test_the_command_writes_maps_scores_and_plates(
    pdfs: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row per image, trial and method; controls beside every lift; words for each region."""
    trials = results.load(folder).trials
    usable = trials[trials["status"] == "finished"].sort_values("best_val_loss")
    other = str(usable["trial_id"].iloc[-1])
    assert not (folder / "attention" / f"plate_{other}.png").exists()
    assert main([str(folder), "--trial", other, "--images", "8"]) == 0
    said = capsys.readouterr().out
    assert "against another image's ink" in said and f"plate_{other}.png" in said
    assert main([str(folder), "--trial", other, "--images", "8", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)["scores"]
    assert {row["trial_id"] for row in scored} == {other}
    assert any(row["score"] == "ink_lift" and row["margin"] is not None for row in scored)
    rows = pd.read_parquet(folder / "attention" / "attention.parquet")
    mine = rows[rows["trial_id"] == other]
    assert len(mine) == 8 * 3 and not mine.duplicated(["test_index", "method"]).any()
    assert (mine["ink_lift_uniform"] == 1).all()
    assert mine["effective_patches"].between(1, 16).all()
    with np.load(folder / "attention" / f"maps_{other}.npz") as maps:
        np.testing.assert_allclose(maps["rollout"].sum(axis=1), 1)
    assert (folder / "attention" / f"plate_{other}.pdf").is_file()


@pytest.mark.ray
def test_a_users_own_picture(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any size and colour; what is predicted of it is printed, and by which model."""
    photo = tmp_path / "me.jpg"
    Image.new("RGB", (300, 200), (200, 30, 60)).save(photo)
    assert main([str(folder), "--image", str(photo)]) == 0
    assert (folder / "attention" / "plate_photos.png").is_file()
    best = results.load(folder).trials.sort_values("best_val_loss").iloc[0]
    first, of_photo, _ = capsys.readouterr().out.splitlines()
    assert main([str(folder), "--image", str(photo), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["predictions"]
    assert of_photo == f"{photo}: {told['predicted']} ({told['probability']:.2f})"
    assert first.startswith(f"trial {best['trial_id']}: learning rate {best['lr']:g}, seed 0 ")
    assert "(rank 1 of 3 by validation loss)" in first
    assert re.fullmatch(rf"{re.escape(str(photo))}: \d \([01]\.\d\d\)", of_photo)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trial", "zzz"], "--trial zzz: no trial with a checkpoint begin so"),
        (["--label", "Smiling"], "no trial with label Smiling"),
        (["--image", "no.jpg"], "there is no such file"),
        (["--layer", "9"], "the model has layers 1 to 2"),
    ],
)
def test_bad_input_is_one_message(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Exit code 2 and the fix, no traceback."""
    assert main([str(folder), *arguments]) == 2
    assert message in capsys.readouterr().err


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


@pytest.mark.ray
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


@pytest.mark.ray
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


@pytest.mark.ray
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


@pytest.mark.ray
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


@pytest.mark.ray
def test_the_label_on_the_command_line(
    of_labels: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """--label takes a trial of that label, or that output of a model of all labels."""
    for folder in of_labels.values():
        assert main([str(folder), "--label", "Wavy_Hair", "--images", "4"]) == 0
        assert "eyes" in capsys.readouterr().out
    assert main([str(of_labels["alone"]), "--label", "Bald"]) == 2
    assert "no trial with label Bald" in capsys.readouterr().err


@pytest.mark.ray
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
