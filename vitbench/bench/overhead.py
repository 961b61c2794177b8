"""`bench overhead`: what a trial costs beyond its training, on Ray, three ways."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vitbench import hardware
from vitbench.bench.contest import Contender
from vitbench.bench.report import Report
from vitbench.bench.session import Session

_REFERENCE = "Ray Tune"
_ALONE = "no Ray, one after another"
_MODULE = "vitbench.bench.ray_baselines"  # the only one that imports Ray
# A Ray in $RAY_ADDRESS must not be measured by accident.
_ENV = {"RAY_ADDRESS": ""}


def measure(session: Session) -> Iterator[Report]:
    """Seconds that a trial of near-zero work occupies its slot."""
    slots = hardware.cpu_count()
    trials, train_trials = (8, 2) if session.quick else (32, 4)
    report = session.compete(
        contenders(trials=trials, train_trials=train_trials, slots=slots),
        benchmark="overhead",
        title="A trial of near-zero work: seconds that it occupies its slot",
        settings={
            "trials per turn": trials,
            "of Ray Train": train_trials,
            "slots": slots,
            "rounds": session.rounds,
        },
        reference=_REFERENCE,
        unit="s/trial",
        higher_is_better=False,
        # Each turn starts its own worker processes, as a sweep does: there is nothing to warm up.
        warmup=0,
    )
    for row in report.rows:
        row.rates = [slots / rate for rate in row.rates]
        row.peak_gib = None  # Ray's memory lies in processes that are not the side's own
    alone = next((row for row in report.rows if row.name == _ALONE), None)
    for row in report.rows:
        if alone and alone.rates and row.rates and row is not alone:
            row.note = f"adds {row.median - alone.median:.2f} s to a trial"
    yield report


def contenders(*, trials: int, train_trials: int, slots: int) -> list[Contender]:
    """Everyone in the order of the table; Ray Train is slow enough to be given fewer trials."""

    def side(name: str, function: str, count: int, **settings: Any) -> Contender:
        return Contender(
            name, f"{_MODULE}:{function}", {"trials": count, "slots": slots, **settings}, env=_ENV
        )

    return [
        side(_ALONE, "no_ray", trials),
        side("vitbench sweep", "vitbench", trials),
        side("vitbench sweep, DDP", "vitbench", train_trials, workers=max(2, slots)),
        side(_REFERENCE, "plain_tune", trials, reuse_actors=False),
        side("Ray Tune, actors reused", "plain_tune", trials, reuse_actors=True),
        side("Ray Train in Ray Tune", "train_in_tune", train_trials),
    ]
