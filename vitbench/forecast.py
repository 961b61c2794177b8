"""`--dry-run`: what would run, in which stacks, and for how long; starts no cluster."""

from __future__ import annotations

import functools
import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from vitbench.analysis.findings import power
from vitbench.config import Range, Sweep, is_whole
from vitbench.data import subsets
from vitbench.data.image_set import ImageSet
from vitbench.errors import UserError
from vitbench.plan import (
    StackPlan,
    TrialConfig,
    broken_rule,
    expand,
    members_of,
    parameter_count,
    stack_flops,
)
from vitbench.plan.names import settings, varying_fields
from vitbench.plan.stacks import local_slots, stacks_of
from vitbench.records import tables
from vitbench.records.history import History
from vitbench.words import duration

if TYPE_CHECKING:
    from vitbench.tuning.runner import Job

_MAX_ROWS = 60
_PROBE_STEPS = 4


def _wall_s(
    plans: Sequence[StackPlan], s_per_flop: Mapping[int | None, float], slots: int
) -> float:
    """Seconds until the last of the stacks is done, placed in order on the first free slot."""
    busy_until_s = [0.0] * slots
    for plan in plans:
        slot = busy_until_s.index(min(busy_until_s))
        busy_until_s[slot] += stack_flops(plan) * s_per_flop[plan.shared.train.train_images]
    return max(busy_until_s)


def _measured_s_per_flop(
    plans: Sequence[StackPlan], images: ImageSet
) -> Mapping[int | None, float]:
    """Time a few real steps of the cheapest stack, evaluation included, on this machine.

    By the number of training images: the fewer there are, the more of an epoch is evaluation.
    """
    import torch

    from vitbench.training.engine import probe

    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    measured = {}
    for size in dict.fromkeys(plan.shared.train.train_images for plan in plans):
        of_size = (plan for plan in plans if plan.shared.train.train_images == size)
        cheapest = min(of_size, key=stack_flops)
        train = cheapest.shared.train
        epoch_s = probe(cheapest, subsets.cut(images, train), device=device, steps=_PROBE_STEPS)
        measured[size] = epoch_s * train.epochs / stack_flops(cheapest)
    return measured


def dry_run(
    sweep: Sweep, trials: Sequence[TrialConfig], images: ImageSet, *, title: str, console: Console
) -> None:
    """Print the trials, their stacks, the image source, the disk space and the forecast."""
    slots, on_gpu = local_slots(sweep.resources)
    if sweep.search.is_grid:
        plans = stacks_of(sweep, trials, slots=slots, on_gpu=on_gpu)
        console.print(_trials_table(trials, plans, images, title))
        if len(trials) > _MAX_ROWS:
            console.print(f"... and {len(trials) - _MAX_ROWS} more trials")
    else:
        plans = _sample_of_search(sweep)
        console.print(_search_text(sweep, plans, images, title), highlight=False)
    say = functools.partial(console.print, soft_wrap=True, highlight=False)
    say(f"images: {images.source}")
    train, val, test = (len(split) for split in (images.train, images.val, images.test))
    say(f"        {train:,} train, {val:,} validation, {test:,} test")
    members = sum(plan.size for plan in plans)
    largest = max(_parameters(plan.members[0], images) for plan in plans)
    say(f"disk:   {_disk_text(sweep, members, largest, min(slots, len(plans)) * plans[0].size)}")
    for number, line in enumerate(power.forecast(sweep)):
        say(f"{'        ' if number else 'claims: '}{line}")
    wall_s = _wall_s(plans, _measured_s_per_flop(plans, images), slots)
    on = f"{slots} {'GPU' if on_gpu else 'CPU core'}{'s' * (slots > 1)}"
    work = f"{members} trials in {len(plans)} stacks on {on}"
    how = f"({work}; from a probe of {_PROBE_STEPS} training steps)"
    say(f"time:   about {duration(wall_s)} on this machine {how}")


def _sample_of_search(sweep: Sweep) -> list[StackPlan]:
    """As many stacks as the search will train, drawn at random: what it suggests is not known."""
    rng = random.Random(sweep.search.seed)
    plans: list[StackPlan] = []
    for _ in range(1000 * sweep.search.suggestions):
        params = {name: _draw(name, axis, rng) for name, axis in sweep.search.space.items()}
        if broken_rule(sweep, params) is None:
            plans.append(StackPlan(tuple(members_of(sweep, params))))
        if len(plans) == sweep.search.suggestions:
            return plans
    raise UserError("search.space: hardly any combination can be built; widen the space")


def _draw(name: str, axis: list[Any] | Range, rng: random.Random) -> Any:
    if not isinstance(axis, Range):
        return rng.choice(axis)
    if is_whole(name):
        return rng.randint(int(axis.low), int(axis.high))
    if axis.log:
        return math.exp(rng.uniform(math.log(axis.low), math.log(axis.high)))
    return rng.uniform(axis.low, axis.high)


def _search_text(sweep: Sweep, plans: Sequence[StackPlan], images: ImageSet, title: str) -> str:
    search = sweep.search
    counts = [_parameters(plan.members[0], images) for plan in plans]
    who = search.method if search.method == "random" else f"optuna ({search.sampler})"
    lines = [
        f"{title}: {search.suggestions} suggestions by {who}, seed {search.seed}, "
        f"for {', '.join(search.objectives)}",
        *(f"  {name}: {_axis_text(name, axis)}" for name, axis in search.space.items()),
    ]
    if search.inner:
        each = " x ".join(f"{name} {_axis_text(name, axis)}" for name, axis in search.inner.items())
        lines.append(f"  each trains a stack of {plans[0].size}: {each}")
    lines.append(f"  parameters: {min(counts):,} to {max(counts):,}")
    return "\n".join(lines)


def _axis_text(name: str, axis: list[Any] | Range) -> str:
    if not isinstance(axis, Range):
        return "[" + ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in axis) + "]"
    kind = " in the logarithm" if axis.log else (" whole" if is_whole(name) else "")
    return f"{axis.low:g} to {axis.high:g}{kind}"


def _parameters(trial: TrialConfig, images: ImageSet) -> int:
    """Parameters of a model, which has one output where it learns one label."""
    outputs = images.outputs if trial.train.label is None else 1
    return parameter_count(trial.model, images.image_size, images.channels, outputs)


def _disk_text(sweep: Sweep, members: int, parameters: int, running: int) -> str:
    """Upper bound of the checkpoints: best and last of those kept, a state of those running.

    A state holds weights, best weights and two moments, and the one before until it is replaced.
    """
    kept = min(members, sweep.checkpoints.keep or members)
    gib = 4 * parameters * (2 * kept + 8 * running) / 2**30
    whose = f"the best {kept} trials" if kept < members else f"{kept} trials"
    return f"at most {gib:.2f} GiB of checkpoints ({whose}, best and last, and those in training)"


def _trials_table(
    trials: Sequence[TrialConfig], plans: Sequence[StackPlan], images: ImageSet, title: str
) -> Table:
    fields = varying_fields(trials)
    stack_of = {m.trial_id: number for number, p in enumerate(plans, 1) for m in p.members}
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("trial", "stack", *fields, "parameters", "epochs", "batch size"):
        table.add_column(name, justify="left" if name == "trial" else "right")
    for trial in trials[:_MAX_ROWS]:
        values = settings(trial)
        table.add_row(
            trial.trial_id,
            str(stack_of[trial.trial_id]),
            *(f"{v:g}" if isinstance(v := values[name], float) else str(v) for name in fields),
            f"{_parameters(trial, images):,}",
            str(trial.train.epochs),
            str(trial.train.batch_size),
        )
    return table


def paper_cost_s(paper: Sweep, job: Job, trials: pd.DataFrame) -> float:
    """Seconds that the sweep would take here at the paper's scale, from the speed just measured.

    `paper` is the sweep at that scale, `trials` the table of what the job trained.
    """
    slots, on_gpu = local_slots(job.sweep.resources)
    timed = trials.dropna(subset=["wall_s"])
    configs = History.read(job.results_dir / tables.LEDGER).configs
    worked = 0.0
    for trial_id, epochs in timed[["trial_id", "epochs"]].to_numpy():
        trial = TrialConfig.model_validate(configs[str(trial_id)])
        worked += int(epochs) / trial.train.epochs * stack_flops(StackPlan((trial,)))
    asked = paper.train.train_images or len(job.images.train)
    train = paper.train.model_copy(update={"train_images": asked})
    paper = paper.model_copy(update={"dataset": job.sweep.dataset, "train": train})
    plans = stacks_of(paper, expand(paper), slots=slots, on_gpu=on_gpu)
    stacks = timed.drop_duplicates("stack_id")
    s_per_flop = float(stacks["wall_s"].sum()) / worked
    return _wall_s(plans, defaultdict(lambda: s_per_flop), slots)
