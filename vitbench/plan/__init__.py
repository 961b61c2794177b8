"""From a sweep to trials, from trials to stacks, and what is left after an interruption."""

from vitbench.config import TrialConfig
from vitbench.plan.cost import epoch_images, forward_flops, parameter_count, train_flops
from vitbench.plan.stacks import Shared, StackPlan, groups_of, pack, shape_key, stack_flops
from vitbench.plan.trials import broken_rule, expand, members_of

__all__ = [
    "Shared", "StackPlan", "TrialConfig", "broken_rule", "epoch_images", "expand", "forward_flops",
    "groups_of", "members_of", "pack", "parameter_count", "shape_key", "stack_flops", "train_flops",
]  # fmt: skip
