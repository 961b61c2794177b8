"""Checkpoints: one folder per trial, safetensors and a small JSON, written atomically.

    <root>/<trial id>/state-<epoch>.safetensors   weights and optimiser, to go on from
    <root>/<trial id>/best.safetensors            weights of the epoch of lowest validation loss
    <root>/<trial id>/last.safetensors            weights of the last epoch

Each file belongs to one member alone, so a member loads without its neighbours, and stacks may be
put together differently after a resume. The state of the epoch before is removed only when all
members of the stack have written theirs; a stack killed in between goes on from the last epoch
that all of them have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from vitbench.errors import UserError
from vitbench.model.layout import VitShape
from vitbench.model.vit import StackedVit
from vitbench.records.files import write_atomically

FORMAT = 1


class CheckpointStore:
    """The checkpoints of a sweep under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, trial_id: str, kind: str) -> Path:
        """Where a trial's `best`, `last` or `state-<epoch>` lies."""
        return self.root / trial_id / f"{kind}.safetensors"

    def save(
        self, trial_id: str, kind: str, tensors: Mapping[str, Tensor], info: Mapping[str, Any]
    ) -> Path:
        """Write tensors and info; either both are there in whole or the old ones are."""
        path = self.path(trial_id, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, **info}, indent=1)
        # The JSON also travels inside the tensor file: the pair cannot come apart.
        content = save({k: t.contiguous() for k, t in tensors.items()}, metadata={"info": text})
        write_atomically(path, content, sync=True)
        write_atomically(path.with_suffix(".json"), text, sync=True)
        return path

    def common_epoch(self, trial_ids: Sequence[str]) -> int:
        """The last epoch of which every one of the trials has a whole state; 0 if none."""
        common: set[int] | None = None
        for trial_id in trial_ids:
            epochs = set(self._state_epochs(trial_id))
            common = epochs if common is None else common & epochs
        return max(common or {0})

    def load_state(self, trial_id: str, epoch: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read the state of an epoch: flat rows by name, and its info."""
        return read(self.path(trial_id, f"state-{epoch}"))

    def keep_only(self, trial_ids: Sequence[str], epoch: int | None) -> None:
        """Remove the states of all other epochs (for None of all, once the trials are over)."""
        for trial_id in trial_ids:
            for found in self._state_epochs(trial_id):
                if found != epoch:
                    for suffix in (".json", ".safetensors"):
                        self.path(trial_id, f"state-{found}").with_suffix(suffix).unlink(
                            missing_ok=True
                        )

    def _state_epochs(self, trial_id: str) -> list[int]:
        found = (self.root / trial_id).glob("state-*.safetensors")
        return [int(path.stem.removeprefix("state-")) for path in found]


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint; no code from the file is run.

    Raises:
        UserError: if the file is missing, damaged, not a checkpoint, or of another format.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint; check the trial's id")
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("info", "")
        tensors = load_file(path)
        info = json.loads(text)
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(
            f"{path}: is damaged or not a checkpoint of vitbench ({error}); "
            f"train the trial again with --resume"
        ) from error
    if info.get("format") != FORMAT:
        raise UserError(
            f"{path}: has checkpoint format {info.get('format')}, this version reads {FORMAT}; "
            f"use the vitbench version named in the results' environment.json"
        )
    return tensors, info


def load_member(path: Path) -> tuple[StackedVit, dict[str, Any]]:
    """Load one trained model as a stack of one, whoever it was trained with.

    Returns:
        The model, and the info written with it: trial_id, config, shape, epoch, metrics, the
        image set's name, checksum, mean, std, classes and the label.

    Raises:
        UserError: as `read`, or if the tensors do not fit the shape that the file states.
    """
    tensors, info = read(path)
    try:
        model = StackedVit(VitShape(**info["shape"]), members=1)
        model.load_member(0, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its tensors do not fit the model it states: {error}") from error
    return model.eval(), info
