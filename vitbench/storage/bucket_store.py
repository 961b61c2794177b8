"""Checkpoints in a bucket: the store of a folder, with a scratch folder in between."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vitbench.storage.checkpoints import CHECKPOINTS, Bucket, epochs_of
from vitbench.training.checkpoint import CheckpointStore


class BucketStore(CheckpointStore):
    """Writes and reads whole objects; nothing stays in the scratch folder."""

    def __init__(self, bucket: Bucket) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="vitbench-")
        super().__init__(Path(self._scratch.name) / CHECKPOINTS)
        self._bucket = bucket

    def save(
        self, trial_id: str, kind: str, tensors: Mapping[str, Tensor], info: Mapping[str, Any]
    ) -> Path:
        """Write tensors and info; the tensors' object holds both."""
        path = super().save(trial_id, kind, tensors, info)
        for file in (path, path.with_suffix(".json")):
            self._bucket.child(trial_id).write(file.name, file.read_bytes())
            file.unlink()
        return path

    def load_state(self, trial_id: str, epoch: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read the state of an epoch: flat rows by name, and its info."""
        path = self.path(trial_id, f"state-{epoch}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._bucket.child(trial_id).read(path.name))
        state = super().load_state(trial_id, epoch)
        path.unlink()
        return state

    def keep_only(self, trial_ids: Sequence[str], epoch: int | None) -> None:
        """Remove the states of all other epochs (of all epochs for None)."""
        for trial_id in trial_ids:
            folder = self._bucket.child(trial_id)
            gone = {found for found in epochs_of(folder.files()) if found != epoch}
            folder.remove([f"state-{n}.{end}" for n in gone for end in ("json", "safetensors")])

    def _state_epochs(self, trial_id: str) -> list[int]:
        return sorted(epochs_of(self._bucket.child(trial_id).files()))
