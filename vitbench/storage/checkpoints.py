"""Keeps the checkpoints of a run in its results folder, on a file system or in a bucket."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vitbench.errors import UserError, in_a_line
from vitbench.records import tables
from vitbench.storage import CHECKPOINTS, PREDICTIONS
from vitbench.storage.place import Place

if TYPE_CHECKING:  # training.checkpoint imports torch, which the driver can do without
    from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run (a training.checkpoint.CheckpointStore); travels to workers."""

    results: Place  # the folder of the run, as all nodes see it

    def require_results_folder(self) -> None:
        """Refuse to train where this node does not see the driver's folder.

        A node that joined later would make one of its own, and lose what it writes there.
        """
        if not self.results.holds(tables.LEDGER):
            raise UserError(
                f"storage: this node ({socket.gethostname()}) does not see {self.results.address}; "
                f"mount the folder there, or name one that all nodes share with `storage:`"
            )

    def name(self, trial_id: str, kind: str) -> str:
        """The file of a trial's `best`, `last` or `state-<epoch>`, from the results folder."""
        return f"{CHECKPOINTS}/{trial_id}/{kind}.safetensors"

    def save(
        self, trial_id: str, kind: str, tensors: Mapping[str, Tensor], info: Mapping[str, Any]
    ) -> None:
        """Write tensors and info; the file of the tensors holds both."""
        from vitbench.training.checkpoint import encode

        folder = self._of(trial_id)
        content, text = encode(tensors, info)
        folder.write(f"{kind}.safetensors", content)
        folder.write(f"{kind}.json", text)

    def save_predictions(self, trial_id: str, content: bytes) -> None:
        """Keep what a trial's model says of the test images; it outlives the trial's weights."""
        self.results.child(PREDICTIONS).write(f"{trial_id}.parquet", content)

    def load_state(self, trial_id: str, epoch: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read the state of an epoch: flat rows by name, and its info; a UserError if damaged."""
        from vitbench.training.checkpoint import decode

        folder, name = self._of(trial_id), f"state-{epoch}.safetensors"
        return decode(folder.read(name), f"{folder.address}/{name}")

    def state_epochs(self, trial_id: str) -> set[int]:
        """Epochs that a trial can go on from: those of which the state is whole."""
        return {n for n in self._states(trial_id) if self._is_whole(trial_id, n)}

    def damaged(self, trial_id: str) -> list[str]:
        """States of a trial that were changed since they were written, by their file's name."""
        states = sorted(self._states(trial_id))
        return [
            self.name(trial_id, f"state-{n}") for n in states if not self._is_whole(trial_id, n)
        ]

    def _states(self, trial_id: str) -> set[int]:
        names = map(
            re.compile(r"state-(\d{1,9})\.safetensors").fullmatch, self._of(trial_id).files()
        )
        return {int(name[1]) for name in names if name}

    def _is_whole(self, trial_id: str, epoch: int) -> bool:
        """Whether the state's file has the checksum that was written after it."""
        folder = self._of(trial_id)
        try:
            told = json.loads(folder.read(f"state-{epoch}.json"))
            found = hashlib.sha256(folder.read(f"state-{epoch}.safetensors")).hexdigest()
            return bool(told.get("sha256", found) == found)  # earlier versions wrote none
        except (OSError, ValueError, AttributeError):
            return False

    def common_epoch(self, trial_ids: Sequence[str]) -> int:
        """The last epoch of which every one of the trials has a whole state; 0 if none."""
        return max(set.intersection(*map(self.state_epochs, trial_ids)), default=0)

    def keep_only(self, trial_ids: Sequence[str], epoch: int | None) -> None:
        """Remove the states of all other epochs (for None of all, once the trials are over)."""
        for trial_id in trial_ids:
            folder, others = self._of(trial_id), self._states(trial_id) - {epoch}
            ours = {f"state-{n}.{suffix}" for n in others for suffix in ("json", "safetensors")}
            folder.remove(ours & folder.files().keys())

    def remove(self, trial_id: str) -> None:
        """Remove all checkpoints of a trial; where that fails they stay, and the run goes on."""
        try:
            self._of(trial_id).remove_all()
        except OSError as error:
            logger.warning("checkpoints of %s stay: %s", trial_id, in_a_line(error))

    def _of(self, trial_id: str) -> Place:
        return self.results.child(CHECKPOINTS).child(trial_id)
