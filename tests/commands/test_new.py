"""`vitbench new`: what it writes is a sweep that can be run, and it overwrites nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitbench import plan
from vitbench.commands import new
from vitbench.config import load_sweep
from vitbench.errors import UserError


@pytest.mark.parametrize("dataset", sorted(new._DATASETS))
def test_a_starter_is_a_sweep_of_as_many_models_as_it_says(tmp_path: Path, dataset: str) -> None:
    """Every data set gives a file without a problem; its comment on the number of models holds."""
    path = new.write("mine", dataset, None, tmp_path)
    sweep = load_sweep(path)
    assert (sweep.name, sweep.dataset.name) == ("mine", dataset)
    assert f"Every combination is trained: {len(plan.expand(sweep))} models" in path.read_text()
    assert sweep.claims


def test_a_starter_for_a_folder_of_images(tmp_path: Path) -> None:
    """Whatever the folder is called, the file says the same path."""
    images = tmp_path / 'it\'s: {my} "photos" #1'
    images.mkdir()
    assert load_sweep(new.write("own", "digits", images, tmp_path)).dataset.path == str(images)


@pytest.mark.parametrize(
    ("name", "images", "message"),
    [
        ("two words", None, "a name may hold letters"),
        ("../out", None, "a name may hold letters"),
        ("mine", "nowhere", "--images nowhere: there is no such folder"),
        ("there", None, "is there already; choose another name"),
    ],
)
def test_bad_input_writes_nothing(
    tmp_path: Path, name: str, images: str | None, message: str
) -> None:
    """One message; a file that is there stays as it is."""
    (tmp_path / "there.yaml").write_text("mine")
    with pytest.raises(UserError, match=message):
        new.write(name, "digits", None if images is None else Path(images), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
    assert (tmp_path / "there.yaml").read_text() == "mine"
