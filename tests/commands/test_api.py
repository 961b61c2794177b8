"""What `import vitbench` offers: typed, lazy, and the same numbers as the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import result_folder
import sweep_runs
import torch

import vitbench
from vitbench import api
from vitbench.attention.subject import open_images
from vitbench.errors import UserError

TINY = {
    "name": "tiny",
    "dataset": {"name": "digits", "image_size": 8},
    "model": {"patch_grid": 2, "depth": 1, "heads": 2, "width": 8, "mlp": 8},
    "train": {"epochs": 2, "train_images": 100, "val_images": 50, "test_images": 50},
    "search": {"space": {"lr": [0.01, 0.001]}},
    "attention": {"top": 0},
}


def test_importing_the_package_is_cheap() -> None:
    """Neither torch nor ray nor pandas until a function needs them; every name is there."""
    code = (
        "import sys, vitbench; heavy = {'torch', 'ray', 'pandas'} & set(sys.modules); "
        "assert not heavy, heavy; [getattr(vitbench, name) for name in vitbench.__all__]; "
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError, match="no attribute 'sweeep'"):
        vitbench.sweeep  # noqa: B018


def test_a_sweep_from_a_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same checks as a file has, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    assert vitbench.load_sweep(TINY, overrides=["train.epochs=7"]).train.epochs == 7
    assert TINY["train"]["epochs"] == 2  # type: ignore[index]
    with pytest.raises(UserError, match="did you mean 'model'"):
        vitbench.load_sweep({**TINY, "modell": {}})
    with pytest.raises(UserError, match="may hold letters"):
        vitbench.run({**TINY, "name": "../out"}, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_results_of_a_folder(tmp_path: Path) -> None:
    """Tables, sentences and figures of the report; a folder without results is refused."""
    results = vitbench.open(result_folder.make(tmp_path / "made"))
    assert len(results.trials) == 30 and set(results.epochs["trial_id"]) <= set(
        results.trials["trial_id"]
    )
    assert results.findings[0]["text"] and results.limits
    assert results.figure("loss_by_lr").axes
    with pytest.raises(UserError, match=r"supports no figure 'lossbylr'; it has .*loss_by_lr"):
        results.figure("lossbylr")
    assert results.report() == tmp_path / "made" / "report.html"
    with pytest.raises(UserError, match="holds no results"):
        vitbench.open(tmp_path)


@pytest.mark.ray
def test_a_model_is_a_plain_module_with_its_preprocessing(finished: sweep_runs.Finished) -> None:
    """It scores the test images as the table says, from bytes and from floats alike."""
    results = vitbench.open(finished.folder)
    model = vitbench.load_model(finished.folder)
    best = results.trials.sort_values("best_val_loss").iloc[0]
    assert isinstance(model, torch.nn.Module) and model.info["trial_id"] == best["trial_id"]
    everything = open_images(results._opened, None)
    test = everything.subset(300, 100, 50).test
    pixels = torch.from_numpy(np.array(test.images))
    logits = model(pixels)
    assert logits.shape == (50, 10) and model.outputs == everything.classes
    right = (logits.argmax(1).numpy() == test.targets[:, 0]).mean()
    assert right == pytest.approx(best["best_test_accuracy"], abs=1e-6)
    torch.testing.assert_close(model(pixels.float() / 255), logits)
    with pytest.raises(UserError, match="no trial with a checkpoint begin"):
        vitbench.load_model(finished.folder, "nothing")


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_runs_and_resumes_from_a_mapping(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results are those of the folder; going on with it trains nothing again."""
    sweep_runs.use_this_ray(monkeypatch)
    results = vitbench.run(TINY, out=tmp_path)
    assert isinstance(results, api.Results)
    assert set(results.trials["status"]) == {"finished"} and len(results.epochs) == 4
    again = vitbench.run(TINY, out=tmp_path, resume=True)
    assert again.folder == results.folder
    pd.testing.assert_frame_equal(again.trials, results.trials)
