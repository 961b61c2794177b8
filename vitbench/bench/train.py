"""`bench train`: images a second of training, this engine beside the public libraries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vitbench import hardware
from vitbench.bench.contest import Contender
from vitbench.bench.report import Report
from vitbench.bench.session import Session, whole_batches

ENGINE, _PEER = "vitbench.bench.sides:engine", "vitbench.bench.sides:peer"


def measure(session: Session) -> Iterator[Report]:
    """A table for each batch size; ratios refer to timm."""
    on_gpu = session.device == "cuda"
    for batch_size in session.batch_sizes:
        images, workers = session.images_of_turn(batch_size), 4 if on_gpu else 0
        everyone = contenders(
            device=session.device,
            batch_size=batch_size,
            images=images,
            threads=session.threads,
            members=session.members or ([1, 3] if session.quick else [1, 3, 8, 16]),
            workers=workers,
            bfloat16=on_gpu or hardware.has_amx(),
            compiled=not session.quick,
        )
        report = session.compete(
            everyone,
            benchmark=f"train-b{batch_size}",
            title=f"Training, batch {batch_size}, ViT of 12 x 192 on 32x32 images",
            settings={
                "batch": batch_size,
                "images per turn": images,
                "rounds": session.rounds,
                "threads": session.threads,
                "DataLoader workers": workers,
                "optimizer": "RAdam",
            },
            reference="timm",
        )
        for row in report.rows:
            if row.parameters is not None:
                row.note = f"{row.parameters / 1e6:.3f} M parameters"
        yield report


def side(name: str, entry: str, settings: dict[str, Any], *, copies: int = 1) -> Contender:
    """A contender that trains, under the environment in which a sweep starts its workers."""
    env = {**hardware.ALLOCATOR_ENV, "OMP_NUM_THREADS": str(settings["threads"])}
    return Contender(name, entry, settings, copies, env)


def contenders(
    *,
    device: str,
    batch_size: int,
    images: int,
    threads: int,
    members: Sequence[int],
    workers: int,
    bfloat16: bool,
    compiled: bool,
) -> list[Contender]:
    """Everyone in the order of the table.

    Args:
        device: cpu or cuda.
        batch_size: of every model.
        images: the work of one turn, summed over members.
        threads: of every side.
        members: sizes of our stacks.
        workers: of the peers' DataLoader.
        bfloat16: whether the hardware is fast in it: the best of both sides use it, too.
        compiled: whether torch.compile takes part; its first turn takes minutes.
    """
    common: dict[str, Any] = {"batch_size": batch_size, "device": device, "threads": threads}
    everyone = []

    def ours(name: str, size: int, **differs: Any) -> None:
        # Wide stacks see fewer images per turn, so that all turns take about as long; on a GPU they
        # are so much faster that they need all of them to be measured well.
        per_member = images if device == "cuda" else whole_batches(images // size, batch_size)
        settings = {**common, "members": size, "images": per_member, **differs}
        everyone.append(side(f"vitbench {name}", ENGINE, settings))

    def peer(name: str, library: str, **differs: Any) -> None:
        settings = {
            **common,
            "images": images,
            "library": library,
            "loader": "dataloader",
            "workers": workers,
            "autocast": False,
            "compiled": False,
            **differs,
        }
        everyone.append(side(name, _PEER, settings))

    for size in members:
        ours(f"K={size}", size)
    best: dict[str, Any] = {"loader": "tensors"}
    if bfloat16 and device == "cpu":  # on a GPU it is the engine's default
        ours(f"K={members[0]}, bfloat16", members[0], precision="bfloat16")
    if compiled and device == "cpu":
        ours(f"K={members[0]}, compiled", members[0], compiled=True)
    elif compiled:
        for size in members[:2]:
            ours(f"K={size}, compiled", size, compiled=True)
    peer("paper's listing", "paper")
    peer("timm", "timm")
    peer("torchvision", "torchvision")
    peer("vit-pytorch", "vit-pytorch")
    peer("timm, no loader", "timm", **best)
    if bfloat16:
        peer("timm, no loader, bfloat16", "timm", **best, autocast=True)
    if compiled and device == "cuda":
        peer("timm, no loader, bfloat16, compiled", "timm", **best, autocast=True, compiled=True)
    elif compiled:
        peer("timm, no loader, compiled", "timm", **best, compiled=True)
    return everyone
