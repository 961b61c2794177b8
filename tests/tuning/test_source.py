"""Tune's view of a source of stacks: slots, the end, and stacks that come once more."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from ray import cloudpickle, tune
from ray.tune.search import Searcher

from vitbench.plan import StackPlan
from vitbench.tuning.events import StackEvent, Started
from vitbench.tuning.recorder import Recorder
from vitbench.tuning.search.source import ListSource, PlanSearcher


def searcher_of(*plans: StackPlan, slots: int = 1) -> PlanSearcher:
    return PlanSearcher(ListSource(plans), lambda: slots, lambda plan: 1)


def test_a_stack_that_crashed_comes_before_new_ones() -> None:
    """Also after the last one was handed out: Tune is told the end when none can come back."""
    first, second = tiny.plan({"lr": 0.1}), tiny.plan({"lr": 0.2})
    searcher = searcher_of(first, second)
    assert searcher.suggest("a")["stack_id"] == first.stack_id
    assert searcher.suggest("b") is None, "the one slot is taken"
    searcher.on_trial_complete("a", error=True)
    searcher.hand_out_again(first)
    assert searcher.suggest("c")["stack_id"] == first.stack_id
    searcher.on_trial_complete("c")
    assert searcher.suggest("d")["stack_id"] == second.stack_id
    searcher.on_trial_complete("d", error=True)
    searcher.hand_out_again(second)
    assert searcher.suggest("e")["stack_id"] == second.stack_id
    searcher.on_trial_complete("e")
    assert searcher.suggest("f") == Searcher.FINISHED


def test_after_the_end_of_the_source_tune_waits_for_what_runs() -> None:
    """Told FINISHED, it would never ask for the stack that crashes now."""
    searcher = searcher_of(tiny.plan(), slots=2)
    searcher.suggest("a")
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a")
    assert searcher.suggest("b") == Searcher.FINISHED


def test_an_ended_sweep_starts_nothing_new() -> None:
    """Only what was begun goes on, to end by itself with a checkpoint."""
    first, second = tiny.plan({"lr": 0.1}), tiny.plan({"lr": 0.2})
    searcher = searcher_of(first, second)
    searcher.suggest("a")
    searcher.finish()
    searcher.on_trial_complete("a", error=True)
    searcher.hand_out_again(first)
    assert searcher.suggest("b")["stack_id"] == first.stack_id
    searcher.on_trial_complete("b")
    assert searcher.suggest("c") == Searcher.FINISHED


class DeadlyOnce:
    """Ends the process of a trial that receives it, the first time."""

    def __init__(self, mark: Path) -> None:
        self.mark, self.driver = mark, os.getpid()

    def __reduce__(self) -> tuple[Callable[..., DeadlyOnce], tuple[Path, int]]:
        return _receive, (self.mark, self.driver)


def _receive(mark: Path, driver: int) -> DeadlyOnce:
    if os.getpid() != driver and not mark.exists():
        mark.touch()
        os._exit(1)
    return DeadlyOnce(mark)


class Events:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[StackEvent] = []

    def observe(self, event: StackEvent) -> None:
        self.told.append(event)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_stack_whose_process_dies_while_it_takes_over_is_trained(tmp_path: Path) -> None:
    """Tune reuses the process of the first stack for the second and drops the second for good when
    that process dies before it has begun, whatever `max_failures` says."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    first, second = tiny.plan({"lr": 0.1}), tiny.plan({"lr": 0.2})
    mark, trained = tmp_path / "died", tmp_path / "trained"

    class Deadly(PlanSearcher):
        def suggest(self, trial_id: str) -> Any:
            config = super().suggest(trial_id)
            if isinstance(config, dict) and config["stack_id"] == second.stack_id:
                config["deadly"] = DeadlyOnce(mark)
            return config

    def train(config: dict[str, Any]) -> None:
        with trained.open("a") as out:
            out.write(f"{config['stack_id']}\n")
        tune.report({"epoch": 0, "rows": [], "outcomes": []})

    searcher = Deadly(ListSource([first, second]), lambda: 1, lambda plan: 1)
    events = Events()
    recorder = Recorder(events, [], searcher.hand_out_again, over=lambda stack_id: None)
    tune.Tuner(
        train,
        tune_config=tune.TuneConfig(search_alg=searcher, num_samples=-1, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=2),
            verbose=0,
        ),
    ).fit()
    assert mark.exists(), "the process of the first stack was not reused"
    assert trained.read_text().split() == [first.stack_id, second.stack_id]
    started = [event.plan for event in events.told if isinstance(event, Started)]
    assert started == [first, second]
