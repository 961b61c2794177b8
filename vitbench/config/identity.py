"""What identifies a trial: a hash of its settings that stays the same when settings are added.

`FROZEN` names the settings that make up an id of version 1, each with its default of that time. A
setting that is added to the code later stands in `ADDED` with the default that it is added with,
and enters an id only where a trial's value differs from it. Existing ids therefore never change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

# environment.json of every run carries it. A change of what is hashed gets a new number, which then
# becomes part of the hashed content; the content of version 1 holds none.
ID_VERSION = 1

# Never edit: results are found by these names and values. New settings go to ADDED.
FROZEN: dict[str, dict[str, Any]] = {
    "dataset": {
        "name": "mnist",
        "offline": None,
        "image_size": 32,
        "labels": None,
        "split": None,
        "count": None,
        "path": None,
        "channels": None,
        "damaged_share": 0.001,
    },
    "model": {
        "patch_grid": 4,
        "depth": 12,
        "heads": 4,
        "width": 192,
        "mlp": None,
        "dropout": 0.0,
    },
    "train": {
        "epochs": 200,
        "batch_size": 16,
        "optimizer": "radam",
        "lr": 0.0003,
        "weight_decay": 0.0,
        "seed": 0,
        "label": None,
        "schedule": "constant",
        "warmup_epochs": 0.0,
        "momentum": 0.9,
        "clip_norm": None,
        "precision": "auto",
        "matched": None,
        "train_images": None,
        "val_images": None,
        "test_images": None,
    },
}
ADDED: dict[str, dict[str, Any]] = {
    "dataset": {"label_noise": None, "build": None, "args": {}, "source": None},
    "model": {"build": None, "args": {}, "name": None, "source": None, "init": "paper"},
    "train": {
        "evaluate_every": 1,
        "augment": None,
        "label_smoothing": 0.0,
        "loss": None,
        "loss_source": None,
        "steps": None,
        "subset": None,
        "patience": None,
    },
}


def identifying(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings that identify a trial: all of FROZEN, and those of ADDED that differ.

    Args:
        settings: of a trial by section (`dataset`, `model`, `train`), as JSON values.

    Raises:
        KeyError: naming a setting that stands in neither table.
    """
    return {
        section: {
            **defaults,
            **{
                name: value
                for name, value in settings[section].items()
                if name in defaults or value != ADDED[section][name]
            },
        }
        for section, defaults in FROZEN.items()
    }


def trial_id(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """First 12 hex digits of the SHA-256 of the canonical JSON of a trial's settings."""
    content = identifying(settings)
    if path := content["dataset"]["path"]:  # where the images lie does not change what is learned
        content["dataset"]["path"] = PurePath(path).name
    del content["dataset"]["offline"]  # says what may be used, not what was used
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
