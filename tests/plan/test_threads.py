"""Threads of stacks: the speed-up that was measured, the schedule, and plans without idle cores."""

from __future__ import annotations

import time

import pytest

from vitbench.config import Dataset, Model, Train, TrialConfig
from vitbench.plan import StackPlan
from vitbench.plan.threads import (
    ends_s,
    in_words,
    one_thread_s,
    parallel_share,
    plan_threads,
    side_by_side,
    speedup,
    worth,
)


def stacks(count: int, *, epochs: int = 4, images: int = 3072, **model: int) -> list[StackPlan]:
    """Stacks of one model each, the paper's unless told otherwise."""
    return [
        StackPlan(
            (
                TrialConfig(
                    dataset=Dataset(name="digits"),
                    model=Model(**model),
                    train=Train(seed=seed, epochs=epochs, train_images=images),
                ),
            )
        )
        for seed in range(count)
    ]


def makespan_s(plans: list[StackPlan], threads: list[int], cores: int) -> float:
    """When the last stack ends, from the speed-ups alone."""
    seconds = [
        one_thread_s(p) / speedup(t, parallel_share(p)) for p, t in zip(plans, threads, strict=True)
    ]
    return max(ends_s(seconds, threads, [cores]))


def test_speedups_are_those_measured() -> None:
    """benchmarks/RESULTS.md: two threads against one, batch 16."""
    (large,), (small,) = stacks(1), stacks(1, width=64, depth=4)
    assert speedup(2, parallel_share(large)) == pytest.approx(1.61, abs=0.03)
    assert speedup(2, parallel_share(small)) == pytest.approx(1.12, abs=0.03)
    (tiny,) = stacks(1, width=8, depth=1, heads=1)
    assert parallel_share(tiny) == 0 and worth(16, 0.0) == 1


def test_a_schedule_by_hand() -> None:
    """Two cores: 4 s and 2 s side by side, 3 s on the core that is free first, both at the end."""
    assert ends_s([4, 2, 3, 1], [1, 1, 1, 2], [2]) == [4, 2, 5, 6]
    # On two nodes of two cores nothing spans both.
    assert ends_s([4, 2, 3], [2, 1, 2], [2, 2]) == [4, 2, 5]


def test_the_most_threads_side_by_side() -> None:
    """Counted node by node."""
    assert side_by_side([16], 3) == 5
    assert side_by_side([4, 4], 3) == 2
    assert side_by_side([2], 5) == 1


@pytest.mark.parametrize(
    ("count", "two", "sixteen"),
    [
        (1, [2], 14),
        (2, [1, 1], 8),
        (3, [1, 1, 2], 5),
        (4, [1] * 4, 4),
        (5, [1, 1, 1, 1, 2], 3),
        (6, [1] * 6, 2),
        (7, [1, 1, 1, 1, 1, 1, 2], 2),
        (8, [1] * 8, 2),
    ],
)
def test_one_to_eight_stacks_on_two_cores_and_on_sixteen(
    count: int, two: list[int], sixteen: int
) -> None:
    """The last of an odd number has both of two cores; sixteen are shared among all."""
    plans = stacks(count)
    assert plan_threads(plans, [2]) == two
    assert plan_threads(plans, [16]) == [sixteen] * count
    for cores in (2, 16):
        planned = makespan_s(plans, plan_threads(plans, [cores]), cores)
        alone = makespan_s(plans, [1] * count, cores)
        full = makespan_s(plans, [cores] * count, cores)
        assert planned <= alone and planned <= 1.03 * full
        if count < cores:
            assert planned < 0.63 * alone


def test_a_tail_ends_together() -> None:
    """17 stacks on 16 cores: the last has many threads, in place of a second round."""
    plans = stacks(17)
    threads = plan_threads(plans, [16])
    assert threads[:16] == [1] * 16 and threads[16] >= 8
    assert makespan_s(plans, threads, 16) < 0.7 * makespan_s(plans, [1] * 17, 16)


def test_a_short_sweep_has_no_tail() -> None:
    """A process of more threads takes seconds to start: more than 3 short stacks would gain."""
    assert plan_threads(stacks(3, epochs=1, images=200), [2]) == [1, 1, 1]


def test_small_models_are_left_on_one_thread() -> None:
    """They gain a tenth by a second thread: less than what it costs to wait for both cores."""
    plans = stacks(5, width=64, depth=4, images=20_000)
    assert plan_threads(plans, [2]) == [1] * 5


def test_thousands_of_stacks_are_planned_at_once() -> None:
    """The plan must not delay the first trial."""
    plans = stacks(1)[:1] * 5000
    started_s = time.perf_counter()
    assert len(plan_threads(plans, [64, 32])) == 5000
    assert time.perf_counter() - started_s < 5


def test_threads_in_words() -> None:
    """What the first line of a sweep says."""
    assert in_words([1, 1]) == "1 thread each"
    assert in_words([5, 5, 5]) == "5 threads each"
    assert in_words([1, 1, 2]) == "1 thread each, the last stack 2"
    assert in_words([1, 4, 4]) == "1 thread each, the last 2 stacks 4"
    assert in_words([2, 1, 2]) == "1 to 2 threads each"
