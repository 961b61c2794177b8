"""Removes the placement groups of workers whose owning actor died.

A placement group that an actor made outlives it, until the job ends. Ray Train leaves a detached
process behind to remove it, which asks the dashboard's state API and does so in vain where there is
no dashboard, or more than one Ray on the machine. The driver knows who died, and asks nobody.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray
from ray import tune
from ray.util.placement_group import (
    PlacementGroup,
    placement_group_table,
    remove_placement_group,
)

from vitbench.tuning.ray_private import is_dead
from vitbench.tuning.worker.channel import Channel

_INTERVAL_S = 0.5


class GroupCleanup(tune.Callback):
    """Removes placement groups whose owner died, while Tune runs and when it ends.

    Args:
        channel: that knows the groups.
        bundle: resources of one worker.
        workers: of one group.
    """

    def __init__(self, channel: Channel, bundle: Mapping[str, float], workers: int) -> None:
        self._channel = channel
        self._bundles = [dict(bundle)] * workers
        self._checked_s = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; handles stay here."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune's own loop, many times a second."""
        if time.monotonic() - self._checked_s >= _INTERVAL_S:
            self.remove_orphans()
            self._checked_s = time.monotonic()

    def remove_orphans(self) -> None:
        """Remove the placement groups whose owner is dead."""
        groups = self._channel.groups()
        dead = {name: group for name, group in groups.items() if is_dead(group.owner)}
        for name, group in dead.items():
            if group.placement is not None:
                remove_placement_group(group.placement)
                self._channel.forget(name)
        starting = [g for name, g in groups.items() if g.placement is None and name not in dead]
        lost = [name for name, group in dead.items() if group.placement is None]
        if lost and not starting:  # died before it could say what it holds
            self._remove_all_but([g.placement for g in groups.values() if g.placement])
            for name in lost:
                self._channel.forget(name)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """All trials are over: remove every group that is left."""
        self._remove_all_but([])

    def _remove_all_but(self, kept: list[PlacementGroup]) -> None:
        """Remove what this job holds in the shape of a group of workers."""
        job = ray.get_runtime_context().get_job_id()
        kept_ids = {placement.id.hex() for placement in kept}
        for name, placed in placement_group_table().items():
            ours = name.endswith(job) and list(placed["bundles"].values()) == self._bundles
            if ours and name not in kept_ids and placed["state"] != "REMOVED":
                remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(name)))
