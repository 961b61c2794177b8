"""Stack sizes of a sweep: measured on a worker once per architecture, then remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

from vitbench import data
from vitbench.config import Dataset, Precision, Sweep
from vitbench.plan import expand
from vitbench.tuning.worker import measure_stack as remembered

SWEEP = {
    "name": "sizes",
    "dataset": {"name": "digits", "image_size": 8},
    "model": {"patch_grid": 2, "depth": 1, "heads": 2, "width": 8, "mlp": 8},
    "train": {"batch_size": 16, "train_images": 200, "val_images": 20, "test_images": 20},
    "search": {"space": {"depth": [1, 2], "seed": [0, 1, 2, 3, 4]}},
    "resources": {"cpus": 1, "gpus": 0},
}


@pytest.mark.ray
def test_measured_once_per_architecture(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both shapes are measured on a worker; a second sweep reads what the first one found."""
    monkeypatch.setattr(remembered, "_WORTH_MEASURING_S", 0.0)
    sweep = Sweep.model_validate(SWEEP)
    images = data.load(Dataset(name="digits", image_size=8), None, tmp_path / "images")
    file = tmp_path / "stack-sizes.json"
    trials = expand(sweep)

    def sizes(precision: Precision = "float32") -> remembered.StackSizes:
        return remembered.StackSizes.measured(
            sweep, trials, images, slots=2, gpus_each=0, precision=precision, file=file
        )

    first = sizes()
    assert "measured in" in first.message
    known = json.loads(file.read_text())
    assert len(known) == 2 and all("torch" in key for key in known)
    # Remembered values are used as they stand, whatever a new measurement would say.
    for entry in known.values():
        entry["members"] = 3
    file.write_text(json.dumps(known))
    second = sizes()
    assert second.message == ""
    assert {second.members(trial) for trial in trials} == {3}
    # In another precision the same shapes are measured anew.
    assert "measured in" in sizes("bfloat16").message
    assert len(json.loads(file.read_text())) == 4


def test_a_short_sweep_on_cpus_is_not_made_to_wait(tmp_path: Path) -> None:
    """Its models are done before a measurement has paid; they train alone."""
    sweep = Sweep.model_validate(SWEEP)
    trials = expand(sweep)
    found = remembered.StackSizes.measured(
        sweep, trials, tiny.image_set(), slots=2, gpus_each=0, file=tmp_path / "x.json"
    )
    assert {found.members(trial) for trial in trials} == {1}


def test_nothing_is_measured_where_every_trial_has_a_slot(tmp_path: Path) -> None:
    """Ten trials on ten slots train alone; no worker is asked (Ray does not even run)."""
    sweep = Sweep.model_validate(SWEEP)
    found = remembered.StackSizes.measured(
        sweep, expand(sweep), tiny.image_set(), slots=10, gpus_each=1, file=tmp_path / "x.json"
    )
    assert found.by_shape == {} and not (tmp_path / "x.json").exists()
