"""`bench overhead`: what a trial costs beyond its training, on Ray, three ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vitbench.bench.contest import Contender, run
from vitbench.bench.report import Report

REFERENCE = "Ray Tune"
_ALONE = "no Ray, one after another"
_ROOM = "vitbench.bench.ray_baselines"  # Ray is imported in that room only
# A Ray in $RAY_ADDRESS must not be measured by accident.
_ENV = {"RAY_ADDRESS": ""}


def contenders(*, trials: int, train_trials: int, slots: int) -> list[Contender]:
    """Everyone in the order of the table; Ray Train is slow enough to be given fewer trials."""

    def side(name: str, function: str, count: int, **settings: Any) -> Contender:
        return Contender(
            name, f"{_ROOM}:{function}", {"trials": count, "slots": slots, **settings}, env=_ENV
        )

    return [
        side(_ALONE, "no_ray", trials),
        side("vitbench sweep", "vitbench", trials),
        side("vitbench sweep, DDP", "vitbench", train_trials, workers=max(2, slots)),
        side(REFERENCE, "plain_tune", trials, reuse_actors=False),
        side("Ray Tune, actors reused", "plain_tune", trials, reuse_actors=True),
        side("Ray Train in Ray Tune", "train_in_tune", train_trials),
    ]


def measure(
    everyone: Sequence[Contender],
    *,
    rounds: int,
    warmup: int,
    slots: int,
    hardware: str,
    settings: dict[str, Any],
    environment: dict[str, Any],
    on_progress: Callable[[str], None],
) -> Report:
    """Run the contest; rates become seconds that a trial occupies its slot."""
    rows = run(everyone, rounds=rounds, warmup=warmup, on_progress=on_progress)
    for row in rows:
        row.rates = [slots / rate for rate in row.rates]
        row.peak_gib = None  # Ray's memory lies in processes that are not the side's own
    alone = next((row for row in rows if row.name == _ALONE), None)
    for row in rows:
        if alone and alone.rates and row.rates and row is not alone:
            row.note = f"adds {row.median - alone.median:.2f} s to a trial"
    names = [contender.name for contender in everyone]
    return Report(
        benchmark="overhead",
        title="A trial of near-zero work: seconds that it occupies its slot",
        hardware=hardware,
        unit="s/trial",
        settings=settings,
        environment=environment,
        rows=rows,
        reference=REFERENCE if REFERENCE in names else names[0],
        ours=frozenset({"vitbench sweep", "vitbench sweep, DDP"}),
        higher_is_better=False,
    )
