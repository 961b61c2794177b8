"""A user's images and loss from a file beside the sweep file: trained, and refused where wrong."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import sweep_runs

from vitbench import sweep as command

DATA = """
import numpy as np

def load(*, image_size, count=60):
    rng = np.random.default_rng(0)
    def part(n):
        targets = np.arange(n) % 3
        images = rng.integers(0, 90, (n, 3, 8, 8), dtype=np.uint8)
        images[np.arange(n), :, 0, targets] = 250
        return images, targets
    return {"train": part(count), "val": part(12), "test": part(9), "classes": ["a", "b", "c"]}
"""
LOSS = """
from torch.nn.functional import cross_entropy

def loss(logits, targets):
    return cross_entropy(logits, targets, reduction="none", label_smoothing=0.1)
"""
SWEEP = """
name: own
dataset: {build: "mydata:load", image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train:
  epochs: 2
  batch_size: 20
  loss: myloss:loss
  augment: {shift: 1, flip: true}
search: {space: {lr: [0.01]}}
attention: {top: 1, images: 4}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep file and the modules that it names; the images' cache is the test's own."""
    monkeypatch.setenv("VITBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mydata.py").write_text(DATA)
    (tmp_path / "myloss.py").write_text(LOSS)
    path = tmp_path / "own.yaml"
    path.write_text(SWEEP)
    return path


@pytest.mark.slow
@pytest.mark.ray
def test_own_images_and_loss_are_trained_and_recorded(file: Path, tmp_path: Path) -> None:
    """The tables name the function; another version of either is another run."""
    out = tmp_path / "out"
    code, output = sweep_runs.sweep_here(str(file), "--out", str(out))
    assert code == 0, output
    folder = sweep_runs.results_of(out)
    trials = pd.read_parquet(folder / "trials.parquet")
    assert trials["dataset"].tolist() == ["mydata:load"]
    assert trials["train_images"].tolist() == [60] and trials["val_images"].tolist() == [12]
    assert sorted(path.name for path in (folder / "code").iterdir()) == ["mydata.py", "myloss.py"]
    assert (folder / "attention" / "spread.csv").is_file()
    (tmp_path / "myloss.py").write_text(LOSS.replace("0.1", "0.2"))
    code, output = sweep_runs.sweep_here(str(file), "--out", str(out), "--resume")
    assert code == 2 and "+    return cross_entropy(logits, targets" in output


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("dtype=np.uint8", "dtype=np.int64", "images of train are int64 [60, 3, 8, 8]; they must"),
        ("return images,", "return images[:, 0],", "images of train are uint8 [60, 8, 8]; they"),
        ("part(12)", "part(0)", "images of val are [0, 3, 8, 8]: there is nothing to see"),
        ('["a", "b", "c"]', '["a", "b"]', "a target is 2, of 2 classes from 0"),
        ("np.arange(n) % 3", "np.arange(n) % 3 - 1", "targets of train run from -1 to 1"),
        ("np.arange(n) % 3", "np.arange(n + 1) % 3", "boolean index did not match"),
        ('"val": part(12), ', "", "must return a mapping with train, val and test"),
        ("rng = ", "1 / 0; rng = ", "ZeroDivisionError: division by zero"),
        ("def load(*, image_size", "def load(*, size", "unexpected keyword argument 'image_size'"),
        ("import numpy as np", "import nump", "ModuleNotFoundError: No module named 'nump'"),
    ],
)
def test_bad_images_are_refused(
    file: Path, before: str, after: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One message that names the function, exit code 2, before a cluster."""
    if words.startswith("boolean"):
        words = "mydata.py"  # numpy's own words
    (file.parent / "mydata.py").write_text(DATA.replace(before, after))
    assert command.main([str(file), "--out", str(file.parent / "out")]) == 2
    error = capfd.readouterr().err
    assert words in error and "own.yaml:3: dataset.build=mydata:load" in error, error
    assert not (file.parent / "out").exists()


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            'reduction="none"',
            'reduction="mean"',
            "with []; it must be one loss for each image, [4]",
        ),
        ("return ", "return logits.new_zeros(4) / 0 + ", "with NaN or infinity"),
        ("return ", "return 0 * logits.detach().sum(1) + logits.new_ones(4) # ", "has no gradient"),
        ("def loss", "def other", "myloss has no function loss"),
        ("return ", "raise KeyError('no') # ", "KeyError: 'no'"),
    ],
)
def test_bad_losses_are_refused(
    file: Path, before: str, after: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One message at the line of the sweep file, exit code 2."""
    (file.parent / "myloss.py").write_text(LOSS.replace(before, after))
    assert command.main([str(file), "--out", str(file.parent / "out")]) == 2
    error = capfd.readouterr().err
    assert words in error and "own.yaml:8" in error, error


def test_contradictions_in_the_file_are_named(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Smoothing beside a loss of one's own, and a name beside a builder."""
    text = SWEEP.replace("  loss:", "  label_smoothing: 0.1\n  loss:")
    file.write_text(text.replace('{build: "mydata:load"', '{name: digits, build: "mydata:load"'))
    assert command.main([str(file)]) == 2
    error = capfd.readouterr().err
    assert "train.label_smoothing=0.1: is of cross entropy, and `loss` is another one" in error
    assert "dataset.build" in error and "2 problems" in error
