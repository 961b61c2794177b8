"""Learning-rate schedules as factors of the peak learning rate."""

from __future__ import annotations

import math


def factor(schedule: str, step: int, *, total_steps: int, warmup_steps: float) -> float:
    """Factor for update `step` (from 0): linear warm-up, then constant or half a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        after = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, after)))
    raise ValueError(f"unknown schedule {schedule!r}")
