"""`bench profile`: where the time of a training step goes."""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from vitbench.bench.contest import Row
from vitbench.bench.report import number, record
from vitbench.bench.session import Session
from vitbench.bench.sides import stack_plan, tiled_digits
from vitbench.plan import stack_flops
from vitbench.training.stack import Stack, uses_bfloat16

# First match wins. Left: names of torch's CPU operators and of CUDA kernels.
_GROUPS = (
    (r"attention|flash|fmha", "attention kernel"),
    (r"mm|gemm|linear|conv|nvjet|cutlass|splitk", "matrix products"),
    (r"layer_?norm|LayerNorm|GammaBeta", "LayerNorm"),
    (r"gelu", "GELU"),
    (r"softmax|nll|cross_entropy|loss", "loss"),
    (r"foreach|lerp|addcmul|addcdiv|sqrt|radam|adam|fused", "optimiser"),
    (r"copy|cat|Memcpy|Memset|index|gather|stack|contiguous|fill|zero|to$", "copies, gathers"),
    (r"add|mul|sub|div|sum|reduce|elementwise", "additions, sums"),
)
_OTHER, _HOST = "other", "outside the operators"
_WHOLE = "whole step"
_PEAK_SIZE = 2048


def measure(session: Session) -> Iterator[dict[str, Any]]:
    """A table for each batch size and stack size asked for."""
    for batch_size in session.batch_sizes:
        for members in session.members or [1]:
            yield _profile(session, batch_size, members)


def _profile(session: Session, batch_size: int, members: int) -> dict[str, Any]:
    """Milliseconds of a training step by kind of operation, the profiler's own cost included."""
    torch.set_num_threads(session.threads)
    device, steps = torch.device(session.device), 4 if session.quick else 32
    plan = stack_plan(members, batch_size, precision=session.precision)
    stack = Stack(plan, tiled_digits(steps * batch_size), device)
    stack.train_epoch(1)  # allocations, capture
    _profiled(stack, 1, steps, device)  # the profiler's own first use
    plain_s, rounds_ms = [], []
    for turn in range(1, session.rounds + 1):
        start_s = time.perf_counter()
        stack.train_epoch(turn + 1)
        plain_s.append((time.perf_counter() - start_s) / steps)
        rounds_ms.append(_profiled(stack, turn + 1, steps, device))
        session.on_progress(f"round {turn}/{session.rounds}  {rounds_ms[-1][_WHOLE]:.1f} ms a step")
    kinds = dict.fromkeys(kind for kinds_ms in rounds_ms for kind in kinds_ms)
    rows = [Row(kind, [kinds_ms.get(kind, 0.0) for kinds_ms in rounds_ms]) for kind in kinds]
    step_s = statistics.median(plain_s)
    # The plan names no number of images, so its FLOPs are those of one image per epoch.
    step_flops = stack_flops(plan) / plan.shared.train.epochs * batch_size
    dtype = torch.bfloat16 if uses_bfloat16(session.precision, device) else torch.float32
    asked = [] if session.precision == "auto" else [session.precision]
    return record(
        session,
        "-".join([f"profile-b{batch_size}-k{members}", *asked]),
        ", ".join([f"Where a training step goes, K={members}, batch {batch_size}", *asked]),
        sorted(rows, key=lambda row: (row.name != _WHOLE, -row.median)),
        settings={
            "batch": batch_size,
            "K": members,
            "threads": session.threads,
            "rounds": session.rounds,
            "steps per round": steps,
            "ms per step without the profiler": number(1e3 * step_s),
            "GFLOP/s of the whole step": number(step_flops / step_s / 1e9),
            f"GFLOP/s of one {_PEAK_SIZE}x{_PEAK_SIZE} matrix product": number(
                _peak_gflops(device, dtype)
            ),
        },
        reference=_WHOLE,
        ours=_WHOLE,
        unit="ms/step",
        higher_is_better=False,
    )


def _profiled(stack: Stack, epoch: int, steps: int, device: torch.device) -> dict[str, float]:
    """Train an epoch; milliseconds of a step by kind of operation."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    start_s = time.perf_counter()
    with profile(activities=activities) as recorded:
        stack.train_epoch(epoch)
        whole_ms = 1e3 * (time.perf_counter() - start_s)
    kinds_ms: dict[str, float] = defaultdict(float)
    for event in recorded.key_averages():
        if (event.device_type == DeviceType.CUDA) == on_gpu:
            spent_us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            kinds_ms[group(event.key)] += spent_us / 1e3
    kinds_ms[_HOST] = max(0.0, whole_ms - sum(kinds_ms.values()))
    return {kind: ms / steps for kind, ms in {_WHOLE: whole_ms, **kinds_ms}.items()}


def _peak_gflops(device: torch.device, dtype: torch.dtype) -> float:
    """What a large matrix product reaches here, in the precision of training: the ceiling."""
    square = torch.ones(_PEAK_SIZE, _PEAK_SIZE, device=device, dtype=dtype)
    times_s = []
    for _ in range(6):
        start_s = time.perf_counter()
        (square @ square)[0, 0].item()
        times_s.append(time.perf_counter() - start_s)
    return 2 * _PEAK_SIZE**3 / min(times_s) / 1e9


def group(operation: str) -> str:
    """The kind of work that an operator or kernel does."""
    return next((name for rule, name in _GROUPS if re.search(rule, operation)), _OTHER)
