"""From a sweep to trials, from trials to stacks, and what is left after an interruption."""

from __future__ import annotations

from vitbench.plan.trials import (
    StackPlan,
    TrialConfig,
    broken_rule,
    epoch_images,
    expand,
    forward_flops,
    groups_of,
    members_of,
    pack,
    parameter_count,
    shape_key,
    stack_flops,
    train_flops,
)

__all__ = [
    "StackPlan",
    "TrialConfig",
    "broken_rule",
    "epoch_images",
    "expand",
    "forward_flops",
    "groups_of",
    "members_of",
    "pack",
    "parameter_count",
    "shape_key",
    "stack_flops",
    "train_flops",
]
