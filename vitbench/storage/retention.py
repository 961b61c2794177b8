"""Bounds the checkpoints on disk: only the best trials of a sweep keep theirs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vitbench.records.history import DONE
from vitbench.storage.checkpoints import Checkpoints


class CheckpointKeeper:
    """Removes the checkpoints of ended trials beyond the best `keep`.

    Args:
        checkpoints: of all trials.
        keep: how many ended trials keep their checkpoints; None for all.
        outcomes: of the runs before.
    """

    def __init__(
        self, checkpoints: Checkpoints, keep: int | None, outcomes: Iterable[Mapping[str, Any]]
    ) -> None:
        self._checkpoints = checkpoints
        self._keep = keep
        self._kept = {
            row["trial_id"]: _rank(row)
            for row in outcomes
            if row["status"] in DONE and row.get("checkpoint")
        }

    def drop(self, ended: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Take in ended trials; returns a ledger row for each trial that lost its checkpoints."""
        if self._keep is None:
            return []
        for row in ended:
            if row["status"] in DONE and row.get("checkpoint"):
                self._kept[row["trial_id"]] = _rank(row)
        dropped = []
        while len(self._kept) > self._keep:
            worst = max(self._kept, key=lambda trial_id: self._kept[trial_id])
            del self._kept[worst]
            self._checkpoints.remove(worst)
            dropped.append({"trial_id": worst, "checkpoint": None})
        return dropped


def _rank(row: Mapping[str, Any]) -> float:
    """Lower is better: the best validation loss; a trial without one goes first."""
    loss = row.get("best_val_loss")
    return loss if loss is not None and math.isfinite(loss) else math.inf
