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
from vitbench.attention import scores as attention_scores
from vitbench.attention.__main__ import main
from vitbench.attention.export import summarise
from vitbench.attention.maps import compute, faithfulness
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
