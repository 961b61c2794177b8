"""`stack_size: auto` on GPUs: measured once per device and architecture, then remembered.

The measurement runs as one short Ray task on a GPU of the cluster. The sizes lie in
stack-sizes.json beside the image cache; a stack that still does not fit halves itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from vitbench.config import Sweep, TrialConfig
from vitbench.data import cache
from vitbench.data.image_set import ImageSet
from vitbench.plan import groups_of, shape_key
from vitbench.plan.stacks import AUTO_MEMBERS_GPU
from vitbench.records.files import write_atomically
from vitbench.tuning.worker.images import SharedImages

logger = logging.getLogger(__name__)

# Of all architectures of a sweep together; those that are left take the usual size.
_MEASURE_AT_MOST_S = 60.0
_ANSWER_WITHIN_S = 120.0


@dataclass(frozen=True)
class StackSizes:
    """Members at most, by architecture.

    Attributes:
        by_shape: what was measured or remembered, by shape_key of a trial.
        message: one line for people; empty where nothing was measured now.
    """

    by_shape: dict[str, int]
    message: str = ""

    def members(self, trial: TrialConfig) -> int:
        """Members at most of a stack of trials like this one."""
        return self.by_shape.get(_name(trial), AUTO_MEMBERS_GPU)

    @classmethod
    def measured(
        cls,
        sweep: Sweep,
        trials: Sequence[TrialConfig],
        images: ImageSet,
        *,
        slots: int,
        gpus_each: float,
        file: Path | None = None,
    ) -> StackSizes:
        """Sizes for every group of trials that are more than the slots hold one by one.

        Args:
            sweep: resources of a worker.
            trials: to be grouped.
            images: of the sweep.
            slots: stacks that run side by side.
            gpus_each: GPUs of one worker.
            file: where sizes are remembered; beside the image cache if left out.
        """
        file = file or cache.folder(None).parent / "stack-sizes.json"
        waiting = [group for group in groups_of(trials) if len(group) > slots]
        members: dict[str, int] = {}
        if not waiting or sweep.resources.workers > 1:
            return cls(members)
        probe = _Probe(sweep, images, gpus_each)
        known, started_s = _read(file), time.monotonic()
        device, new = probe.device(), 0
        for group in waiting:
            key = f"{device}/{_name(group[0])}"
            # A group that was smaller than now says nothing about larger stacks.
            at_most = -(-len(group) // slots)
            if key in known and known[key]["at_most"] >= min(at_most, known[key]["tried"]):
                members[_name(group[0])] = known[key]["members"]
            elif device is not None and time.monotonic() - started_s < _MEASURE_AT_MOST_S:
                answer = probe.measure(group[0], at_most)
                if answer is not None:
                    members[_name(group[0])] = answer["members"]
                    known[key] = {**answer, "at_most": at_most}
                    new += 1
        if not new:
            return cls(members)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(known, indent=1) + "\n")
        sizes = ", ".join(str(size) for size in sorted(set(members.values())))
        took_s = time.monotonic() - started_s
        return cls(members, f"stacks of up to {sizes} members, measured in {took_s:.0f} s")


class _Probe:
    """Asks a worker of the cluster."""

    def __init__(self, sweep: Sweep, images: ImageSet, gpus_each: float) -> None:
        self._options = {"num_cpus": sweep.resources.cpus, "num_gpus": gpus_each, "max_retries": 0}
        self._images = images
        self._shared: SharedImages | None = None

    def device(self) -> str | None:
        """What the workers compute on and with; None if nobody answers in time."""
        answer = self._ask(_device_name)
        return None if answer is None else str(answer)

    def measure(self, trial: TrialConfig, at_most: int) -> dict[str, int] | None:
        """The size to use (`members`) and the largest that was tried; None without an answer."""
        if self._shared is None:
            self._shared = SharedImages.share(self._images, ship=True)
        answer = self._ask(_measure, self._shared, trial.model_dump(mode="json"), at_most)
        return None if answer is None else dict(answer)

    def _ask(self, function: Callable[..., Any], *arguments: object) -> Any:
        reference = ray.remote(function).options(**self._options).remote(*arguments)
        try:
            return ray.get(reference, timeout=_ANSWER_WITHIN_S)
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
            ray.cancel(reference, force=True)
            logger.warning("the size of stacks was not measured: %s", str(error).splitlines()[0])
            return None


def _device_name() -> str:
    import torch

    name = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu {os.uname().machine}"
    )
    return f"{name}, torch {torch.__version__}"


def _measure(shared: SharedImages, trial: dict[str, object], at_most: int) -> dict[str, int]:
    import torch

    from vitbench.training.stack_size import choose, throughput

    config = TrialConfig.model_validate(trial)
    train = config.train
    images = shared.open().subset(train.train_images, train.val_images, train.test_images)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speeds = throughput(config, images, device, at_most=at_most)
    return {"members": choose(speeds), "tried": max(speeds, default=1)}


def _name(trial: TrialConfig) -> str:
    return hashlib.sha256(shape_key(trial).encode()).hexdigest()[:16]


def _read(file: Path) -> dict[str, dict[str, int]]:
    try:
        content: dict[str, dict[str, int]] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:  # measured again: nothing is lost
        logger.warning("%s is not JSON; measuring again", file)
        return {}
    return content
