"""Bounds the checkpoints on disk: only the best trials of a sweep keep theirs."""

from __future__ import annotations

import math
from collections.abc import Iterable

from vitbench.records.types import TrialOutcome
from vitbench.storage.checkpoints import Checkpoints


class Retention:
    """Removes the checkpoints of ended trials beyond the best `keep`.

    Args:
        checkpoints: of all trials.
        keep: how many ended trials keep their checkpoints; None for all.
        outcomes: of the runs before.
    """

    def __init__(
        self, checkpoints: Checkpoints, keep: int | None, outcomes: Iterable[TrialOutcome]
    ) -> None:
        self._checkpoints = checkpoints
        self._keep = keep
        self._kept: dict[str, float] = {}
        self._take(outcomes)

    def drop(self, ended: Iterable[TrialOutcome]) -> list[str]:
        """Take in ended trials; returns the ids of those that lost their checkpoints."""
        if self._keep is None:
            return []
        self._take(ended)
        dropped = []
        while len(self._kept) > self._keep:
            worst = max(self._kept, key=lambda trial_id: self._kept[trial_id])
            del self._kept[worst]
            self._checkpoints.remove(worst)
            dropped.append(worst)
        return dropped

    def _take(self, ended: Iterable[TrialOutcome]) -> None:
        for outcome in ended:
            if outcome.status.is_done and outcome.checkpoint:
                self._kept[outcome.trial_id] = _rank(outcome)


def _rank(outcome: TrialOutcome) -> float:
    """Lower is better: the best validation loss; a trial without one goes first."""
    loss = outcome.best_val_loss
    return loss if loss is not None and math.isfinite(loss) else math.inf
