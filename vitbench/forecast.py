"""`--dry-run`: what would run, in which stacks, and for how long; starts no cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.table import Table

from vitbench.config import PAPER, Sweep, load_sweep
from vitbench.data.image_set import ImageSet
from vitbench.outcome import settings, varying_fields
from vitbench.plan import StackPlan, TrialConfig, expand, parameter_count, stack_flops
from vitbench.tuning.packing import local_slots, stacks_of
from vitbench.tuning.progress import duration

if TYPE_CHECKING:
    from vitbench.tuning.runner import Job

_MAX_ROWS = 60
_PROBE_STEPS = 4


@dataclass(frozen=True)
class Rate:
    """How fast this machine trains, from a short probe."""

    s_per_flop: float
    slots: int

    def wall_s(self, plans: Sequence[StackPlan]) -> float:
        """Seconds until the last of the stacks is done, placed in order on the first free slot."""
        busy_until_s = [0.0] * self.slots
        for plan in plans:
            slot = busy_until_s.index(min(busy_until_s))
            busy_until_s[slot] += stack_flops(plan) * self.s_per_flop
        return max(busy_until_s)


def measure(plans: Sequence[StackPlan], images: ImageSet, *, slots: int) -> Rate:
    """Time a few real steps of the cheapest stack, evaluation included, on this machine."""
    import torch

    from vitbench.training.engine import probe

    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cheapest = min(plans, key=stack_flops)
    epoch_s = probe(cheapest, images, device=device, steps=_PROBE_STEPS)
    return Rate(epoch_s * cheapest.train.epochs / stack_flops(cheapest), slots)


def dry_run(
    sweep: Sweep, trials: Sequence[TrialConfig], images: ImageSet, *, scale: str, console: Console
) -> None:
    """Print the trials, their stacks, the image source and the forecast."""
    slots, on_gpu = local_slots(sweep.resources)
    plans = stacks_of(sweep, trials, slots=slots, on_gpu=on_gpu)
    fields = varying_fields(trials)
    console.print(_trials_table(trials, plans, fields, images, f"{sweep.name} at scale {scale}"))
    if len(trials) > _MAX_ROWS:
        console.print(f"... and {len(trials) - _MAX_ROWS} more trials")
    console.print(f"images: {images.source}", soft_wrap=True, highlight=False)
    console.print(
        f"        {len(images.train.targets):,} train, {len(images.val.targets):,} validation, "
        f"{len(images.test.targets):,} test",
        highlight=False,
    )
    rate = measure(plans, images, slots=slots)
    hardware = "GPU" if on_gpu else "CPU core"
    console.print(
        f"time:   about {duration(rate.wall_s(plans))} on this machine "
        f"({len(trials)} trials in {len(plans)} stacks on {slots} {hardware}s; from a probe of "
        f"{_PROBE_STEPS} training steps)",
        soft_wrap=True,
        highlight=False,
    )


def _trials_table(
    trials: Sequence[TrialConfig],
    plans: Sequence[StackPlan],
    fields: Sequence[str],
    images: ImageSet,
    title: str,
) -> Table:
    stack_of = {m.trial_id: number for number, p in enumerate(plans, 1) for m in p.members}
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("trial", "stack", *fields, "parameters", "epochs", "batch size"):
        table.add_column(name, justify="left" if name == "trial" else "right")
    for trial in trials[:_MAX_ROWS]:
        values = settings(trial)
        outputs = images.outputs if trial.train.label is None else 1
        table.add_row(
            trial.trial_id,
            str(stack_of[trial.trial_id]),
            *(f"{v:g}" if isinstance(v := values[name], float) else str(v) for name in fields),
            f"{parameter_count(trial.model, images.image_size, images.channels, outputs):,}",
            str(trial.train.epochs),
            str(trial.train.batch_size),
        )
    return table


def paper_cost_s(file: Path, overrides: Sequence[str], job: Job, trials: pd.DataFrame) -> float:
    """Seconds that the sweep would take here at the paper's scale, from the speed just measured."""
    slots, on_gpu = local_slots(job.sweep.resources)
    stacks = trials.dropna(subset=["wall_s"]).drop_duplicates("stack_id")
    done = {trial.trial_id: trial for trial in job.trials}
    worked = 0.0
    for row in trials.dropna(subset=["wall_s"]).itertuples():
        trial = done[row.trial_id]
        share = row.epochs / trial.train.epochs
        worked += share * stack_flops(StackPlan((trial,)))
    paper = load_sweep(file, scale=PAPER, overrides=overrides)
    paper = paper.model_copy(update={"dataset": job.sweep.dataset})
    plans = stacks_of(paper, expand(paper), slots=slots, on_gpu=on_gpu)
    return Rate(float(stacks["wall_s"].sum()) / worked, slots).wall_s(plans)
