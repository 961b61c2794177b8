"""`--dry-run`: what would run, in which stacks, and for how long; starts no cluster."""

from __future__ import annotations

import functools
import math
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from vitbench import hardware
from vitbench.analysis.findings import power
from vitbench.config import Precision, Range, Sweep, axes_of, is_whole, models_of
from vitbench.config.axes import MODEL
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
    room,
    stack_flops,
)
from vitbench.plan.names import settings, value_text, varying_fields
from vitbench.plan.stacks import local_slots, stacks_of
from vitbench.plan.threads import ends_s, in_words, parallel_share, speedup
from vitbench.records import tables
from vitbench.records.history import History
from vitbench.tuning.stack_cpus import StackCpus, threads_of
from vitbench.words import decimal, duration

if TYPE_CHECKING:
    from vitbench.tuning.runner import Job

_MAX_ROWS = 60
_PROBE_STEPS = 4


def _wall_s(
    plans: Sequence[StackPlan],
    rate: Callable[[StackPlan], float],
    slots: int,
    threads: Sequence[int] | None = None,
) -> float:
    """Seconds until the last of the stacks is done, placed in order on what is free first.

    `rate` gives the seconds of one thread for each FLOP of a stack. Without `threads` each stack
    takes one slot.
    """
    threads = threads or [1] * len(plans)
    seconds = [
        stack_flops(plan) * rate(plan) / speedup(count, parallel_share(plan))
        for plan, count in zip(plans, threads, strict=True)
    ]
    return max(ends_s(seconds, threads, [slots]))


def _threads(sweep: Sweep, plans: Sequence[StackPlan], slots: int, on_gpu: bool) -> list[int]:
    """Threads of each stack on this machine, where `resources.cpus: auto` plans them."""
    search, on_cpus = sweep.search, not on_gpu and sweep.resources.workers == 1
    cpus = StackCpus(sweep.resources, [slots], {}, on_cpus=on_cpus)
    if search.is_grid and search.concurrency is None:
        cpus.plan(plans)
    else:
        cpus.plan_any(min(search.concurrency or len(plans), len(plans)))
    return [threads_of(cpus(plan)) for plan in plans]


def _kind(plan: StackPlan) -> tuple[str | None, int | None]:
    """What the seconds of a FLOP depend on: the model, and how many images it trains on.

    Convolutions and products of matrices differ; the fewer images there are, the more of an epoch
    is evaluation.
    """
    return plan.shared.model.name, plan.shared.train.train_images


def _measured_rates(
    plans: Sequence[StackPlan], images: ImageSet, precision: Precision
) -> Callable[[StackPlan], float]:
    """Time a few real steps of the cheapest stack of each kind here, evaluation included."""
    import torch

    from vitbench.training.engine import probe

    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rates = {}
    for kind in dict.fromkeys(map(_kind, plans)):
        cheapest = min((plan for plan in plans if _kind(plan) == kind), key=stack_flops)
        train = cheapest.shared.train
        used = subsets.cut(images, train)
        epoch_s = probe(cheapest, used, device=device, steps=_PROBE_STEPS, precision=precision)
        rates[kind] = epoch_s * train.epochs / stack_flops(cheapest)
    return lambda plan: rates[_kind(plan)]


@dataclass(frozen=True)
class Forecast:
    """What a sweep would train here, as `--dry-run --json` prints it."""

    name: str
    models: int
    stacks: int  # of a search: suggestions
    side_by_side: int
    device: str  # cpu or gpu
    precision: str  # what train.precision: auto would be on this machine
    wall_s: float  # until the last stack ends, from a few real steps
    parameters: int  # of the largest model
    images: dict[str, int]  # by split
    source: str
    seeds: int
    claims: list[str]  # what the seeds can decide, in words
    trials: list[dict[str, Any]]  # of a grid: trial_id, stack from 1, settings that vary


def dry_run(
    sweep: Sweep, trials: Sequence[TrialConfig], images: ImageSet, *, title: str, console: Console
) -> Forecast:
    """Print the trials, their stacks, the image source, the disk space and the forecast."""
    from vitbench.analysis.findings.render import sentence  # bad input need not wait for jinja

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
    claims = [sentence(told) for told in power.forecast(sweep)]
    for number, line in enumerate(claims):
        say(f"{'        ' if number else 'claims: '}{line}")
    slow = hardware.slow_in_bfloat16(on_gpu=on_gpu)
    precision: Precision = "float32" if slow else "bfloat16"
    asked = {plan.shared.train.precision for plan in plans}
    if "auto" in asked:
        because = slow or f"this {'GPU' if on_gpu else 'processor'} is fast in it"
        say(f"precision: {precision} ({because}; every node that trains is asked at the start)")
    threads = _threads(sweep, plans, slots, on_gpu) if sweep.resources.cpus == "auto" else None
    wall_s = _wall_s(plans, _measured_rates(plans, images, precision), slots, threads)
    on = f"{slots} {'GPU' if on_gpu else 'CPU core'}{'s' * (slots > 1)}"
    on += f", {in_words(threads)}" if threads and not on_gpu else ""
    stacks = f" in {len(plans)} stack{'s' * (len(plans) > 1)}" if members > len(plans) else ""
    work = f"{members} trial{'s' * (members > 1)}{stacks} on {on}"
    how = f"({work}; from a probe of {_PROBE_STEPS} training steps)"
    say(f"time:   about {duration(wall_s)} on this machine {how}")
    fields, stack_of = varying_fields(trials) if trials else [], _stack_numbers(plans)
    return Forecast(
        name=sweep.name,
        models=members,
        stacks=len(plans),
        side_by_side=slots,
        device="gpu" if on_gpu else "cpu",
        precision=precision,
        wall_s=wall_s,
        parameters=largest,
        images={"train": train, "val": val, "test": test},
        source=images.source,
        seeds=power.seeds_of(sweep),
        claims=claims,
        trials=[
            {"trial_id": trial.trial_id, "stack": stack_of[trial.trial_id]}
            | {name: settings(trial).get(name) for name in fields}
            for trial in trials
        ],
    )


def lack_of_room(
    sweep: Sweep, trials: Sequence[TrialConfig], images: ImageSet, out: Path | None
) -> str | None:
    """Why the sweep cannot fit on this machine, in words; None where it perhaps can.

    `out` is where checkpoints go, if that is a folder that has none of this run yet.
    """
    slots, on_gpu = local_slots(sweep.resources)
    plans = _sample_of_search(sweep)
    if sweep.search.is_grid:
        plans = stacks_of(sweep, trials, slots=slots, on_gpu=on_gpu, auto=lambda _: 1)
    parameters = functools.partial(_parameters, images=images)
    have_gib, every = hardware.memory_gib(on_gpu=on_gpu), sweep.search.is_grid
    lack = room.memory_lacks(plans, parameters, have_gib, 1 if on_gpu else slots, every=every)
    if lack is not None:
        where = "the largest GPU here has" if on_gpu else "this machine has"
        fix = "choose smaller models or stacks, or name a cluster with --address"
        return f"{lack}, and {where} {have_gib:,.1f} GiB; {fix}"
    models = [member for plan in plans for member in plan.members]
    count = min(len(models), sweep.budget.models or len(models))
    needs_gib = room.disk_gib(models, parameters, sweep.checkpoints, count)
    if out is not None:
        there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
        free_gib = shutil.disk_usage(there).free / 2**30
        if needs_gib > free_gib:
            return (
                f"checkpoints.keep={sweep.checkpoints.keep}: the checkpoints of {count:,} models "
                f"take {needs_gib:,.1f} GiB, and {there} has {free_gib:,.1f} GiB free; keep fewer, "
                f"or name another place with --out"
            )
    return None


def _stack_numbers(plans: Sequence[StackPlan]) -> dict[str, int]:
    """The stack of each trial, counted from 1."""
    return {m.trial_id: number for number, plan in enumerate(plans, 1) for m in plan.members}


def _sample_of_search(sweep: Sweep) -> list[StackPlan]:
    """As many stacks as the search will train, drawn at random: what it suggests is not known."""
    rng = random.Random(sweep.search.seed)
    plans: list[StackPlan] = []
    for _ in range(1000 * sweep.search.suggestions):
        model = rng.choice(models_of(sweep))
        axes = axes_of(sweep.search.space, model)
        params = {name: _draw(name, axis, rng) for name, axis in axes}
        params |= {} if model is None else {MODEL: model}
        if broken_rule(sweep, params) is None:
            plans.append(StackPlan(tuple(members_of(sweep, params))))
        if len(plans) == sweep.search.suggestions:
            return plans
    raise UserError("search.space: hardly any combination can be built; widen the space")


def _draw(name: str, axis: list[Any] | Range, rng: random.Random) -> Any:
    if not isinstance(axis, Range):
        return rng.choice(axis)
    if is_whole(name, axis):
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
        return "[" + ", ".join(decimal(v) if isinstance(v, float) else str(v) for v in axis) + "]"
    kind = " in the logarithm" if axis.log else (" whole" if is_whole(name, axis) else "")
    return f"{decimal(axis.low)} to {decimal(axis.high)}{kind}"


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
    stack_of = _stack_numbers(plans)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    together = len(trials) > len(plans)  # else every stack is a trial
    heads = ["trial", *(["stack"] if together else []), *fields]
    for name in (*heads, "parameters", "epochs", "batch size"):
        table.add_column(name, justify="left" if name == "trial" else "right")
    for trial in trials[:_MAX_ROWS]:
        values = settings(trial)
        table.add_row(
            trial.trial_id,
            *([str(stack_of[trial.trial_id])] if together else []),
            *(value_text(values.get(name)) for name in fields),
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
    planned = job.sweep.resources.cpus == "auto" and not on_gpu  # threads, differently there
    configs = History.read(job.results_dir / tables.LEDGER).configs
    worked: dict[str | None, float] = {}
    took_s: dict[str | None, float] = {}
    for _, rows in trials.dropna(subset=["wall_s"]).groupby("stack_id", sort=False):
        members = [TrialConfig.model_validate(configs[key]) for key in rows["trial_id"]]
        stack, name = StackPlan(tuple(members)), members[0].model.name
        for trial, epochs in zip(members, rows["epochs"], strict=True):
            share = int(epochs) / trial.train.epochs
            worked[name] = worked.get(name, 0.0) + share * stack_flops(StackPlan((trial,)))
        # Seconds of one thread, whatever the stack was trained on.
        threads = max(1, int(rows["threads"].fillna(1).iloc[0])) if planned else 1
        one_s = float(rows["wall_s"].iloc[0]) * speedup(threads, parallel_share(stack))
        took_s[name] = took_s.get(name, 0.0) + one_s
    asked = paper.train.train_images or len(job.images.train)
    train = paper.train.model_copy(update={"train_images": asked})
    paper = paper.model_copy(update={"dataset": job.sweep.dataset, "train": train})
    plans = stacks_of(paper, expand(paper), slots=slots, on_gpu=on_gpu)
    rates = {name: took_s[name] / worked[name] for name in worked}
    threads_then = _threads(paper, plans, slots, on_gpu) if planned else None
    return _wall_s(plans, lambda plan: rates[plan.shared.model.name], slots, threads_then)
