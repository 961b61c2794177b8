"""`bench scaling`: where the engine's throughput goes with stack size, threads and processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vitbench.bench.contest import Contender, run
from vitbench.bench.report import Report
from vitbench.bench.train import ENGINE, side, whole_batches

_SMALL = {"width": 64, "depth": 4}
_CPU_STACKS = (1, 2, 4, 8)
_GPU_STACKS = (1, 2, 4, 8, 16, 32)


def contenders(*, device: str, batch_size: int, images: int, cores: int) -> list[Contender]:
    """On a CPU: processes against threads, then stacks of both widths; on a GPU: stacks."""
    common: dict[str, Any] = {"device": device, "batch_size": batch_size}
    if device == "cuda":
        return [
            side(f"K={size}", ENGINE, _stack(common, images, size, threads=1))
            for size in _GPU_STACKS
        ]
    everyone = [side("K=1", ENGINE, _stack(common, images, 1, threads=1))]
    if cores > 1:
        everyone += [
            side(f"K=1, {cores} threads", ENGINE, _stack(common, images, 1, threads=cores)),
            side(
                f"K=1, {cores} processes",
                ENGINE,
                _stack(common, images, 1, threads=1),
                copies=cores,
            ),
        ]
    for size in _CPU_STACKS[1:]:
        settings = _stack(common, images, size, threads=1)
        everyone.append(side(f"K={size}", ENGINE, settings))
    for size in _CPU_STACKS:
        settings = {**_stack(common, images * 8, size, threads=1), **_SMALL}
        everyone.append(side(f"4 x 64 wide, K={size}", ENGINE, settings))
    return everyone


def _stack(common: dict[str, Any], images: int, size: int, *, threads: int) -> dict[str, Any]:
    on_gpu = common["device"] == "cuda"
    per_member = images if on_gpu else whole_batches(images // size, common["batch_size"])
    return {**common, "members": size, "images": per_member, "threads": threads}


def measure(
    everyone: Sequence[Contender],
    *,
    rounds: int,
    warmup: int,
    batch_size: int,
    hardware: str,
    settings: dict[str, Any],
    environment: dict[str, Any],
    on_progress: Callable[[str], None],
) -> Report:
    """Run the contest; images of all members and processes together, against one model alone."""
    return Report(
        benchmark=f"scaling-b{batch_size}",
        title=f"Stacks, threads and processes, batch {batch_size}",
        hardware=hardware,
        unit="images/s",
        settings=settings,
        environment=environment,
        rows=run(everyone, rounds=rounds, warmup=warmup, on_progress=on_progress),
        reference=everyone[0].name,
        ours=frozenset(contender.name for contender in everyone),
    )
