"""`bench scaling`: where the engine's throughput goes with stack size, threads and processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vitbench import hardware
from vitbench.bench.contest import Contender
from vitbench.bench.report import Report
from vitbench.bench.session import Session, whole_batches
from vitbench.bench.train import ENGINE, side


@dataclass(frozen=True)
class Size:
    """A model to scale; `work` is how many more images it trains in the same time, roughly."""

    name: str
    depth: int
    width: int
    work: int


SIZES = (Size("paper", 12, 192, 1), Size("small", 4, 64, 12))
_STACKS = {"cpu": (1, 2, 4, 8), "cuda": (1, 2, 4, 8, 16, 32)}


def measure(session: Session) -> Iterator[Report]:
    """Images of all members and processes together, against one model alone."""
    for batch_size in session.batch_sizes:
        images = session.images_of_turn(batch_size)
        if session.workers:
            # scikit-learn has 1,197 digits to train on; two epochs make a turn.
            size, images = SIZES[0], min(images, 1024)
            everyone = worker_contenders(
                size, batch_size=batch_size, images=images, workers=session.workers
            )
            title = "One model on several processes (DDP)"
            settings = {"global batch": batch_size, "images per turn": 2 * images}
            yield _measure(session, everyone, size, batch_size, title, settings, kind="workers-")
            continue
        for size in SIZES:
            everyone = contenders(
                size,
                device=session.device,
                batch_size=batch_size,
                images=images,
                cores=hardware.cpu_count(),
            )
            title = "Stacks, threads and processes"
            settings = {"batch": batch_size, "images per turn": images * size.work}
            yield _measure(session, everyone, size, batch_size, title, settings)


def _measure(
    session: Session,
    everyone: Sequence[Contender],
    size: Size,
    batch_size: int,
    title: str,
    settings: dict[str, Any],
    kind: str = "",
) -> Report:
    return session.compete(
        everyone,
        benchmark=f"scaling-{kind}{size.name}-b{batch_size}",
        title=f"{title}, batch {batch_size}, ViT of {size.depth} x {size.width}",
        settings={**settings, "rounds": session.rounds, "optimizer": "RAdam"},
        reference=everyone[0].name,
        ours="",
    )


def contenders(
    size: Size, *, device: str, batch_size: int, images: int, cores: int
) -> list[Contender]:
    """On a CPU: one model on threads and in processes, then stacks; on a GPU: stacks."""
    common: dict[str, Any] = {
        "device": device,
        "batch_size": batch_size,
        "depth": size.depth,
        "width": size.width,
    }

    def stack(name: str, members: int, *, threads: int = 1, copies: int = 1) -> Contender:
        work = images * size.work
        per_member = work if device == "cuda" else whole_batches(work // members, batch_size)
        settings = {**common, "members": members, "images": per_member, "threads": threads}
        return side(name, ENGINE, settings, copies=copies)

    everyone = [stack(f"K={members}", members) for members in _STACKS[device]]
    if device == "cpu" and cores > 1:
        everyone[1:1] = [
            stack(f"K=1, {cores} threads", 1, threads=cores),
            stack(f"K=1, {cores} processes", 1, copies=cores),
        ]
    return everyone


def worker_contenders(
    size: Size, *, batch_size: int, images: int, workers: Sequence[int]
) -> list[Contender]:
    """One model on so many processes with the same global batch: DDP under Ray Train."""
    settings = {
        "batch_size": batch_size,
        "images": whole_batches(images, batch_size),
        "depth": size.depth,
        "width": size.width,
    }
    return [
        Contender(
            f"{count} worker{'s' * (count > 1)}",
            "vitbench.bench.ray_baselines:ddp",
            {**settings, "workers": count},
            env={"RAY_ADDRESS": ""},
        )
        for count in workers
    ]
