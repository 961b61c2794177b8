"""What a search minimises: one number (or several) for a stack, always finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Literal

from vitbench.config.search import EACH_EPOCH
from vitbench.plan import StackPlan, TrialConfig, epoch_images, parameter_count, train_flops
from vitbench.records.types import EpochRow, TrialOutcome

# Metrics that grow when things get better; every other objective is minimised.
MAXIMISED = frozenset({"val_accuracy"})


def direction(objective: str) -> Literal["minimize", "maximize"]:
    """Optuna's name for the way the objective should go."""
    return "maximize" if objective in MAXIMISED else "minimize"


def worst(objective: str, seen: Iterable[float], outputs: int) -> float:
    """A finite stand-in for a diverged stack: no better than any value seen.

    At least twice the loss of a model that has learned nothing, or an accuracy of 0. Told as a
    failure instead, a sampler keeps coming back to where models diverge.
    """
    finite = [value for value in seen if math.isfinite(value)]
    if objective in MAXIMISED:
        return min([0.0, *finite])
    return max([2.0 * math.log(max(2, outputs)), *finite])


def best_arm(
    members: Sequence[TrialConfig], values: Mapping[str, float], *, objective: str, stand_in: float
) -> float:
    """Best over a stack's arms (learning rates, ...) of the mean over seeds.

    Architectures are then compared each at its own tuned learning rate. Where models learn one
    label each, it is the mean over labels of that: no label stands for the others because it is
    easy. A model that has no finite value (by trial id) diverged; `stand_in` is then its value, and
    that of a stack of such models.
    """
    if not any(map(math.isfinite, values.values())):
        return stand_in
    arms: dict[tuple[str | None, str], list[float]] = {}
    for member in members:
        arm = member.train.model_copy(update={"seed": 0}).model_dump_json()
        value = values.get(member.trial_id, math.nan)
        known = value if math.isfinite(value) else stand_in
        arms.setdefault((member.train.label, arm), []).append(known)
    means: dict[str | None, list[float]] = {}
    for (label, _), of_seeds in arms.items():
        means.setdefault(label, []).append(fmean(of_seeds))
    best = max if objective in MAXIMISED else min
    return fmean(map(best, means.values()))


def cost(objective: str, plan: StackPlan, *, channels: int, outputs: int) -> float:
    """Objectives that are known before training: `parameters` and `train_flops` of one model."""
    if objective == "parameters":
        size = plan.shared.dataset.image_size
        return float(parameter_count(plan.shared.model, size, channels, outputs))
    images = epoch_images(plan.shared.train)
    return train_flops(plan.members[0], images=images, channels=channels, outputs=outputs)


def lr_sensitivity(members: Sequence[TrialConfig], losses: Mapping[str, float], l0: float) -> float:
    """Mean excess loss over the stack's learning rates, each loss capped at `l0`.

    S = mean over lr of (min(loss, l0) - best loss), means over seeds first
    (arXiv:2309.14322). `l0` is the loss of a model that has learned nothing.
    """
    by_lr: dict[float, list[float]] = {}
    for member in members:
        value = losses.get(member.trial_id, math.nan)
        by_lr.setdefault(member.train.lr, []).append(min(value, l0) if math.isfinite(value) else l0)
    means = [sum(values) / len(values) for values in by_lr.values()]
    return sum(means) / len(means) - min(means)


def are_evaluated(rows: Iterable[EpochRow]) -> bool:
    """Whether every model of an epoch was evaluated after it, or has diverged."""
    return all(row.val_loss is not None for row in rows)


def after_epoch(row: EpochRow, objective: str) -> float:
    """The value of a model that still trains, after an epoch with an evaluation.

    Raises:
        ValueError: for an objective that an epoch does not have.
    """
    if objective not in EACH_EPOCH:
        raise ValueError(f"{objective!r} is not measured after each epoch")
    return float(getattr(row, objective))


def final_metric(outcomes: Iterable[TrialOutcome], objective: str) -> dict[str, float]:
    """The value of each ended model by trial id: its best validation loss, or accuracy there.

    Diverged models have none.
    """
    return {
        outcome.trial_id: value
        for outcome in outcomes
        if outcome.status.has_loss and (value := getattr(outcome, f"best_{objective}")) is not None
    }
