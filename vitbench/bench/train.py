"""`bench train`: images a second of training, this engine beside the public libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vitbench.bench.contest import Contender, run
from vitbench.bench.report import Report
from vitbench.errors import UserError
from vitbench.hardware import ALLOCATOR_ENV

REFERENCE = "timm"
ENGINE, _PEER = "vitbench.bench.sides:engine", "vitbench.bench.sides:peer"


def side(name: str, entry: str, settings: dict[str, Any], *, copies: int = 1) -> Contender:
    """A contender that trains, under the environment in which a sweep starts its workers."""
    env = {**ALLOCATOR_ENV, "OMP_NUM_THREADS": str(settings["threads"])}
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


def whole_batches(images: int, batch_size: int) -> int:
    """Round down to whole batches, two at least."""
    return max(2, images // batch_size) * batch_size


def choose(everyone: Sequence[Contender], only: Sequence[str]) -> list[Contender]:
    """Those whose names contain one of the words; all where none is given.

    Raises:
        UserError: a word that names nobody.
    """
    for word in only:
        if not any(word in contender.name for contender in everyone):
            names = ", ".join(contender.name for contender in everyone)
            raise UserError(f"--only {word}: no contender is called so; there are: {names}.")
    return [c for c in everyone if not only or any(word in c.name for word in only)]


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
    """Run the contest; ratios refer to timm, or to the first contender where timm is not in it."""
    rows = run(everyone, rounds=rounds, warmup=warmup, on_progress=on_progress)
    for row in rows:
        if row.parameters is not None:
            row.note = f"{row.parameters / 1e6:.3f} M parameters"
    names = [contender.name for contender in everyone]
    return Report(
        benchmark=f"train-b{batch_size}",
        title=f"Training, batch {batch_size}, ViT of 12 x 192 on 32x32 images",
        hardware=hardware,
        unit="images/s",
        settings=settings,
        environment=environment,
        rows=rows,
        reference=REFERENCE if REFERENCE in names else names[0],
        ours=frozenset(name for name in names if name.startswith("vitbench")),
    )
