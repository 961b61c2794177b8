"""What a sweep would take at the paper's scale, from the speed that was just measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from vitbench.commands import forecast
from vitbench.config import Sweep
from vitbench.plan import StackPlan, expand
from vitbench.plan.threads import parallel_share, speedup
from vitbench.records import tables
from vitbench.records.ledger import Ledger


def sweep(seeds: int, epochs: int) -> Sweep:
    train = {"epochs": epochs, "train_images": 50_000}
    return Sweep.model_validate(
        {
            "name": "s",
            "dataset": {"name": "digits"},
            "train": train,
            "search": {"space": {"seed": [*range(seeds)]}},
            "stack_size": 1,
        }
    )


@pytest.mark.parametrize(
    ("trained", "threads", "asked", "expected_s"),
    [
        (1, [2], (1, 4), lambda one_s, s: 2 * one_s / s),  # twice the epochs, two threads again
        (1, [2], (2, 2), lambda one_s, s: one_s),  # two models side by side, a thread each
        (3, [1, 1, 2], (3, 2), lambda one_s, s: one_s + one_s / s + 5.0),  # the last on both
    ],
)
def test_threads_of_what_was_trained_and_of_what_will_be(
    trained: int,
    threads: list[int],
    asked: tuple[int, int],
    expected_s: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two cores; a model takes 10,000 s on one thread for two epochs, less on two."""
    monkeypatch.setattr(forecast, "local_slots", lambda resources: (2, False))
    one_s, done = 10_000.0, sweep(trained, 2)
    trials = expand(done)
    gain = speedup(2, parallel_share(StackPlan((trials[0],))))
    with Ledger(tmp_path / tables.LEDGER) as ledger:
        for trial in trials:
            config = trial.model_dump(mode="json")
            ledger.append("trial", trial_id=trial.trial_id, stack_id="s", config=config)
    rows = [
        {
            "trial_id": trial.trial_id,
            "stack_id": f"{number}",
            "epochs": 2,
            "wall_s": one_s / (gain if count == 2 else 1.0),
            "threads": count,
        }
        for number, (trial, count) in enumerate(zip(trials, threads, strict=True))
    ]
    job: Any = SimpleNamespace(sweep=done, results_dir=tmp_path, images=SimpleNamespace(train=[]))
    found = forecast.paper_cost_s(sweep(*asked), job, pd.DataFrame(rows))
    assert found == pytest.approx(expected_s(one_s, gain), abs=5.1)  # a process may start
