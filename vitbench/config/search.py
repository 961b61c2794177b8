"""The search section: what varies, who chooses, when to stop."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Scalar = bool | int | float | str | None
Objective = Literal["val_loss", "val_accuracy", "parameters", "train_flops", "lr_sensitivity"]
EACH_EPOCH = ("val_loss", "val_accuracy")  # objectives known of a model that still trains
OBJECTIVES: tuple[str, ...] = get_args(Objective)


class Section(BaseModel):
    """Base of all sections of a sweep file: unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Range(Section):
    """A range to search in, ends included."""

    low: float = Field(description="its lowest value, included")
    high: float = Field(description="its highest value, included")
    log: bool = Field(default=False, description="search evenly in the logarithm")
    step: float | None = Field(
        default=None, gt=0, description="distance of the values from each other; any if left out"
    )


class Search(Section):
    """Grids are expanded; random and optuna suggest one architecture at a time."""

    method: Literal["grid", "random", "optuna"] = Field(
        default="grid",
        description="grid trains every combination, random and optuna draw suggestions",
    )
    space: dict[str, list[Scalar] | Range] = Field(
        default_factory=dict, description="setting: list of choices, or {low, high, log, step}"
    )
    sampler: Literal["tpe", "gp", "cmaes", "random", "qmc"] = Field(
        default="tpe", description="who suggests where method is optuna"
    )
    suggestions: int = Field(
        default=20, ge=1, description="architectures to train (random and optuna)"
    )
    seed: int = Field(default=0, ge=0, description="of the sampler")
    concurrency: int | None = Field(
        default=None,
        ge=1,
        description="suggestions in training at once; all slots if left out. An optuna search "
        "gives the same suggestions twice only with 1",
    )
    inner: dict[str, list[Scalar]] = Field(
        default_factory=dict,
        description="settings that every suggestion trains together: it is judged by the best over "
        "them of the mean over seeds, of several labels by the mean of each label's best",
    )
    objectives: list[Objective] = Field(
        default=["val_loss"], min_length=1, description="several give a Pareto front"
    )
    scheduler: Literal["none", "asha"] = Field(
        default="none", description="asha stops bad suggestions early; it kills slow starters"
    )
    grace_epochs: int = Field(default=1, ge=1, description="asha: epochs that none is stopped in")
    reduction_factor: int = Field(default=3, ge=2, description="asha: one in so many goes on")

    @property
    def is_grid(self) -> bool:
        """Whether every combination is trained."""
        return self.method == "grid"


class Budget(Section):
    """Hard limits for the whole sweep, counted over all its resumes; none if left out."""

    hours: float | None = Field(default=None, gt=0, description="wall-clock hours")
    gpu_hours: float | None = Field(
        default=None, gt=0, description="hours of all GPUs that stacks hold"
    )
    models: int | None = Field(default=None, ge=1, description="models trained to an end")
    epochs: int | None = Field(default=None, ge=1, description="epochs of all models together")


class Checkpoints(Section):
    """What stays on disk."""

    every_s: float = Field(default=30.0, ge=0, description="seconds between resume checkpoints")
    keep: int | None = Field(
        default=None, ge=1, description="best trials whose checkpoints stay; all if left out"
    )
