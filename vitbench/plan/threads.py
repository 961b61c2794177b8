"""How many threads each stack of a sweep computes on, so that cores end together. Pure functions.

Two processes of one thread train more than one process of two, so stacks side by side come first.
Where stacks run out, idle cores are worth having: fewer stacks than cores share them, and of more
stacks the last few wait until all cores are free and then run side by side on several threads each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from vitbench.plan.cost import forward_flops
from vitbench.plan.stacks import StackPlan, stack_flops

# Measured (benchmarks/RESULTS.md, float32, 2 threads against 1): FLOPs of a training step, and the
# share of it that threads divide among them by Amdahl's law. x1.12 at width 64, x1.61 at 192.
_SMALL, _LARGE = (0.37e9, 0.21), (8.8e9, 0.76)
_MOST_THREADS = 16  # nothing suggests that batches of some 16 images gain beyond
# Of one core, between those measured for both (58 and 97 GFLOP/s); a rough clock is enough here.
_FLOPS_PER_S = 80e9
# A process for stacks of more threads starts when the last of fewer has ended.
_START_S = 5.0
_NOT_WORTH = 0.03  # of the time: fewer threads repeat their numbers on more machines
_MOST_CORES = 128  # above, only sweeps of fewer stacks than cores are planned


def parallel_share(plan: StackPlan) -> float:
    """Share of a stack's time that threads divide, from the work of one of its steps."""
    shared = plan.shared
    forward = forward_flops(shared.model, shared.dataset.image_size, channels=1, outputs=10)
    step = 3.0 * forward * shared.train.batch_size * plan.size
    place = math.log(step / _SMALL[0]) / math.log(_LARGE[0] / _SMALL[0])
    return min(max(_SMALL[1] + place * (_LARGE[1] - _SMALL[1]), 0.0), 0.9)


def speedup(threads: int, share: float) -> float:
    """How many times as fast as on one thread (Amdahl 1967)."""
    return 1.0 / (1.0 - share + share / threads)


def one_thread_s(plan: StackPlan) -> float:
    """Seconds that a stack takes on one thread, roughly."""
    return stack_flops(plan) / _FLOPS_PER_S


def side_by_side(nodes: Sequence[int], count: int) -> int:
    """The most threads with which so many stacks fit on nodes of so many cores; 1 at least."""
    fitting = (t for t in range(1, max(nodes) + 1) if sum(n // t for n in nodes) >= count)
    return min(max(fitting, default=1), _MOST_THREADS)


def worth(threads: int, share: float) -> int:
    """The fewest threads that are nearly as fast as so many."""
    least = speedup(threads, share) * (1.0 - _NOT_WORTH)
    return next(t for t in range(1, threads + 1) if speedup(t, share) >= least)


def ends_s(seconds: Sequence[float], threads: Sequence[int], nodes: Sequence[int]) -> list[float]:
    """When each stack ends; each, in order, starts as soon as one node has its threads free.

    Args:
        seconds: each stack takes on its threads.
        nodes: cores of each; no stack has more threads than the largest.
    """
    cores = [[0.0] * count for count in nodes]
    return [_place(cores, s, t) for s, t in zip(seconds, threads, strict=True)]


def _place(cores: list[list[float]], seconds: float, threads: int) -> float:
    """Give a stack to the node that is free for it first; returns when it ends."""
    node = min((c for c in cores if len(c) >= threads), key=lambda c: c[threads - 1])
    end_s = node[threads - 1] + seconds
    node[:threads] = [end_s] * threads
    node.sort()
    return end_s


def plan_threads(plans: Sequence[StackPlan], nodes: Sequence[int]) -> list[int]:
    """Threads of each stack of a list that is trained in order: one each, more for the last few.

    Tried are all numbers of last stacks that fit side by side on several threads each; of the plans
    that end first, or nearly so, the one with the fewest threads is taken.

    Args:
        nodes: cores of each node that trains.
    """
    count, cores = len(plans), sum(nodes)
    alone_s, shares = [one_thread_s(p) for p in plans], [parallel_share(p) for p in plans]
    if cores > _MOST_CORES:
        most = side_by_side(nodes, count)
        return [worth(most, share) for share in shares]
    tried: list[tuple[float, list[int]]] = []
    free = [[0.0] * n for n in nodes]
    for first in range(count + 1):  # of the last stacks
        last = count - first
        if last < cores:
            most = side_by_side(nodes, last) if last else 1
            for threads in _halves(most) if last else [1]:
                wide = [worth(threads, share) for share in shares[first:]]
                state, end_s = [list(node) for node in free], max(itertools.chain(*free))
                for seconds, share, t in zip(alone_s[first:], shares[first:], wide, strict=True):
                    late_s = _START_S if first and t > 1 else 0.0
                    end_s = max(end_s, _place(state, seconds / speedup(t, share) + late_s, t))
                tried.append((end_s, [1] * first + wide))
        if first < count:
            _place(free, alone_s[first], 1)
    soonest_s = min(end_s for end_s, _ in tried)
    good = [threads for end_s, threads in tried if end_s <= soonest_s / (1.0 - _NOT_WORTH)]
    return min(good, key=sum)


def _halves(most: int) -> list[int]:
    """A number and what halving it gives: 6, 3, 1."""
    return [most >> n for n in range(most.bit_length())]


def in_words(threads: Sequence[int]) -> str:
    """`1 thread each`, `5 threads each`, `1 thread each, the last 3 stacks 5`; 1 of none."""
    runs = [(t, len(list(same))) for t, same in itertools.groupby(threads)]
    if len(runs) > 2 or not runs:
        return f"1 to {max(threads, default=1)} threads each"
    (first, _), *rest = runs
    text = f"{first} thread{'s' * (first > 1)} each"
    for t, many in rest:
        text += f", the last {f'{many} stacks' if many > 1 else 'stack'} {t}"
    return text
