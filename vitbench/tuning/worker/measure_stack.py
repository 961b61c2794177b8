"""`stack_size: auto`: measured once per device and architecture, then remembered.

The measurement runs as one short Ray task on a GPU or a core of the cluster. The sizes lie in
stack-sizes.json beside the image cache; a stack that still does not fit halves itself. On CPUs
stacking gains a quarter where models are small, so short sweeps are not made to wait for it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import ray

from vitbench import hardware
from vitbench.config import Precision, Sweep, TrialConfig
from vitbench.data import cache, subsets
from vitbench.data.image_set import ImageSet
from vitbench.plan import StackPlan, groups_of, shape_key
from vitbench.plan.stacks import AUTO_MEMBERS_CPU, AUTO_MEMBERS_GPU
from vitbench.plan.threads import one_thread_s
from vitbench.records.files import write_atomically
from vitbench.tuning.worker.images import SharedImages
from vitbench.user_code import NO_CODE, Code

logger = logging.getLogger(__name__)

# Of all architectures of a sweep together; those that are left take the usual size.
_MEASURE_AT_MOST_S = 60.0
_ANSWER_WITHIN_S = 120.0
# Of a group of models on CPUs, roughly: less is trained before a measurement has paid.
_WORTH_MEASURING_S = 60.0


@dataclass(frozen=True)
class StackSizes:
    """Members at most, by architecture (see `_name`); `message` where some were measured now."""

    by_shape: dict[str, int]
    usual: int  # of those that were not measured
    message: str = ""

    def members(self, trial: TrialConfig) -> int:
        """Members at most of a stack of trials like this one."""
        return self.by_shape.get(_name(trial), self.usual)

    @classmethod
    def measured(
        cls,
        sweep: Sweep,
        trials: Sequence[TrialConfig],
        images: ImageSet,
        *,
        slots: int,
        gpus_each: float,
        precision: Precision = "auto",
        file: Path | None = None,
        code: Code = NO_CODE,
    ) -> StackSizes:
        """Sizes for every group of trials that are more than the slots hold one by one.

        `gpus_each` are those of one worker, `precision` what the trials' `auto` stands for; `file`,
        beside the image cache if left out, remembers.
        """
        file = file or cache.folder(None).parent / "stack-sizes.json"
        usual = AUTO_MEMBERS_GPU if gpus_each else AUTO_MEMBERS_CPU
        waiting = [group for group in groups_of(trials) if len(group) > slots]
        if not gpus_each:
            waiting = [g for g in waiting if _one_by_one_s(g) / slots > _WORTH_MEASURING_S]
        members: dict[str, int] = {}
        if not waiting or sweep.resources.workers > 1:
            return cls(members, usual)
        options = {
            "num_cpus": sweep.resources.cpus_at_least,
            "num_gpus": gpus_each,
            "max_retries": 0,
        }
        ask = functools.partial(_ask, options)
        shared: SharedImages | None = None
        known, started_s = _read(file), time.monotonic()
        device, new = ask(_device_name, gpus_each > 0), False
        for group in waiting:
            name = _name(group[0])
            key = f"{device}, {precision}/{name}"
            # A group that was smaller than now says nothing about larger stacks.
            at_most = -(-len(group) // slots)
            if key in known and known[key]["at_most"] >= min(at_most, known[key]["tried"]):
                members[name] = known[key]["members"]
            elif device is not None and time.monotonic() - started_s < _MEASURE_AT_MOST_S:
                shared = shared or SharedImages.share(images, ship=True)
                answer = ask(_measure, shared, code, group[0], at_most, precision)
                if answer is not None:
                    members[name] = answer["members"]
                    known[key] = {**answer, "at_most": at_most}
                    new = True
        if not new:
            return cls(members, usual)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(known, indent=1) + "\n")
        sizes = ", ".join(map(str, sorted(set(members.values()))))
        took_s = time.monotonic() - started_s
        return cls(members, usual, f"stacks of up to {sizes} members, measured in {took_s:.0f} s")


def _ask(options: dict[str, Any], function: Callable[..., Any], *arguments: object) -> Any:
    """The answer of a worker of the cluster; None if none answers in time."""
    reference = ray.remote(function).options(**options).remote(*arguments)
    try:
        return ray.get(reference, timeout=_ANSWER_WITHIN_S)
    except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
        ray.cancel(reference, force=True)
        logger.warning("the size of stacks was not measured: %s", str(error).splitlines()[0])
        return None


def _device_name(on_gpu: bool) -> str:
    """What the workers compute on and with; of a processor without importing torch, seconds."""
    if not on_gpu:
        return f"{hardware.cpu_name()}, torch {metadata.version('torch')}"
    import torch

    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"


def _one_by_one_s(trials: Sequence[TrialConfig]) -> float:
    """Seconds that one core needs for all of these, roughly."""
    return sum(one_thread_s(StackPlan((trial,))) for trial in trials)


def _measure(
    shared: SharedImages, code: Code, trial: TrialConfig, at_most: int, precision: Precision
) -> dict[str, int]:
    """The size to use (`members`) and the largest that was tried."""
    import torch

    from vitbench.training.stack_size import choose, throughput

    code.use()
    images = subsets.cut(shared.open(), trial.train)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    speeds = throughput(trial, images, device, at_most=at_most, precision=precision)
    return {"members": choose(speeds), "tried": max(speeds, default=1)}


def _name(trial: TrialConfig) -> str:
    return hashlib.sha256(shape_key(trial).encode()).hexdigest()[:16]


def _read(file: Path) -> dict[str, dict[str, int]]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError:  # measured again: nothing is lost
        logger.warning("%s is not JSON; measuring again", file)
        return {}
