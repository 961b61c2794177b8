"""`bench train`, `input`, `scaling` and `overhead`: who takes part, and with how much work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from vitbench import hardware
from vitbench.bench import commands, peers, sides
from vitbench.bench.contest import Contender
from vitbench.bench.report import record
from vitbench.bench.session import Session, whole_batches
from vitbench.data import data_folder
from vitbench.data.sets import mnist

# A Ray in $RAY_ADDRESS must not be measured by accident.
_NO_CLUSTER = {"RAY_ADDRESS": ""}
_ALONE = "no Ray, one after another"
_SCRIPT = "script with timm"


class Size(NamedTuple):
    """A model to scale; `work` is how many more images it trains in the same time, roughly."""

    name: str
    depth: int
    width: int
    work: int


SIZES = (Size("paper", 12, 192, 1), Size("small", 4, 64, 12))
_GENERIC = (1, 8)  # stack sizes at which timm's module is measured in the engine, too
_STACKS = {"cpu": (1, 2, 4, 8), "cuda": (1, 2, 4, 8, 16, 32)}


def train(session: Session) -> Iterator[dict[str, Any]]:
    """Images a second of training; a table for each batch size, ratios refer to timm."""
    for batch_size in session.batch_sizes:
        rows = session.compete(train_sides(session, batch_size))
        for row in rows:
            if row.parameters is not None:
                row.note = f"{row.parameters / 1e6:.3f} M parameters"
        yield record(
            session,
            f"train-b{batch_size}",
            f"Training, batch {batch_size}, ViT of 12 x 192 on 32x32 images",
            rows,
            settings={
                "batch": batch_size,
                "images per turn": session.images_of_turn(batch_size),
                "rounds": session.rounds,
                "threads": session.threads,
                "DataLoader workers": _loader_workers(session),
                "optimizer": "RAdam",
            },
            reference="timm",
        )


def train_sides(session: Session, batch_size: int) -> list[Contender]:
    """Everyone in the order of the table.

    The best of both sides use bfloat16, too, where the hardware is fast in it, and torch.compile,
    whose first turn takes minutes, unless the session is quick.
    """
    on_gpu = session.device == "cuda"
    bfloat16, compiled = on_gpu or hardware.has_amx(), not session.quick
    images = session.images_of_turn(batch_size)
    members = session.members or ([1, 3] if session.quick else [1, 3, 8, 16])
    common = {"batch_size": batch_size, "device": session.device, "threads": session.threads}

    def ours(size: int, how: str = "", **differs: Any) -> Contender:
        per_member = _per_member(session, images, size, batch_size)
        settings = {**common, "members": size, "images": per_member, **differs}
        return _trains(f"vitbench K={size}{how}", sides.engine, settings)

    def peer(name: str, library: str = "timm", **differs: Any) -> Contender:
        settings = {**common, "images": images, "library": library, **differs}
        return _trains(name, sides.peer, {"workers": _loader_workers(session), **settings})

    everyone = [ours(size) for size in members]
    for size in (size for size in members if size in _GENERIC):
        everyone.append(ours(size, ", generic", build="vitbench.bench.peers:paper"))
    if bfloat16 and not on_gpu:  # on a GPU it is the engine's default
        everyone.append(ours(members[0], ", bfloat16", precision="bfloat16"))
    if compiled:
        for size in members[: 2 if on_gpu else 1]:
            everyone.append(ours(size, ", compiled", compiled=True))
    everyone += [peer(library, library) for library in peers.BUILDERS]
    best: dict[str, Any] = {"workers": None}
    everyone.append(peer("timm, no loader", **best))
    if bfloat16:
        everyone.append(peer("timm, no loader, bfloat16", **best, autocast=True))
    if compiled:
        how = ", bfloat16" if on_gpu else ""
        name = f"timm, no loader{how}, compiled"
        everyone.append(peer(name, **best, autocast=on_gpu, compiled=True))
    return everyone


def _loader_workers(session: Session) -> int:
    return 4 if session.device == "cuda" else 0


def _per_member(session: Session, images: int, members: int, batch_size: int) -> int:
    """Images of a member in a turn.

    Wide stacks see fewer, so that all turns take about as long; on a GPU they are so much faster
    that they need all of them to be measured well.
    """
    return images if session.device == "cuda" else whole_batches(images // members, batch_size)


def _trains(
    name: str, function: Callable[..., None], settings: dict[str, Any], copies: int = 1
) -> Contender:
    """A contender that trains, under the environment in which a sweep starts its workers."""
    env = {**hardware.ALLOCATOR_ENV, "OMP_NUM_THREADS": str(settings["threads"])}
    return Contender(name, function, settings, copies, env)


def input_path(session: Session) -> Iterator[dict[str, Any]]:
    """Images a second that reach the model; ratios refer to torchvision's pipeline, in process."""
    (batch_size, *_) = session.batch_size or [128]
    images = session.images or (512 if session.quick else 4096)
    yield record(
        session,
        "input",
        "Input, 28x28 images to normalised 32x32 batches",
        session.compete(input_sides(session, batch_size, images)),
        settings={"batch": batch_size, "images per turn": images, "rounds": session.rounds},
        reference="torchvision, in process",
    )


def input_sides(session: Session, batch_size: int, images: int) -> list[Contender]:
    """Everyone in the order of the table.

    A turn of a few milliseconds measures nothing: the fast ones get more to do.
    """
    common = {"device": session.device, "batch_size": batch_size, "threads": session.threads}
    many = max(2, hardware.cpu_count())

    def loader(name: str, workers: int, images: int, resized: bool = False) -> Contender:
        settings = {**common, "images": images, "workers": workers, "resized": resized}
        return Contender(name, sides.loader_input, settings)

    return [
        Contender("vitbench", sides.engine_input, {**common, "images": 40 * images}),
        loader("torchvision, in process", 0, images),
        loader(f"torchvision, {many} workers", many, images),
        loader("resized tensors, DataLoader", 0, 5 * images, resized=True),
    ]


def scaling(session: Session) -> Iterator[dict[str, Any]]:
    """Images of all members and processes together, against one model alone."""
    for batch_size in session.batch_sizes:
        for size in SIZES[:1] if session.workers else SIZES:
            images = session.images_of_turn(batch_size)
            if session.workers:
                images = min(images, 1024)  # scikit-learn has 1,197 digits to train on
                kind, title = "workers-", "One model on several processes (DDP)"
                everyone = worker_sides(size, batch_size, images, session.workers)
                # Two epochs make a turn.
                settings = {"global batch": batch_size, "images per turn": 2 * images}
            else:
                images *= size.work
                kind, title = "", "Stacks, threads and processes"
                everyone = stack_sides(session, size, batch_size, images)
                settings = {"batch": batch_size, "images per turn": images}
            yield record(
                session,
                f"scaling-{kind}{size.name}-b{batch_size}",
                f"{title}, batch {batch_size}, ViT of {size.depth} x {size.width}",
                session.compete(everyone),
                settings={**settings, "rounds": session.rounds, "optimizer": "RAdam"},
                reference=everyone[0].name,
                ours="",
            )


def stack_sides(session: Session, size: Size, batch_size: int, images: int) -> list[Contender]:
    """On a CPU: one model on threads and in processes, then stacks; on a GPU: stacks."""
    shape = {"depth": size.depth, "width": size.width}
    common = {**shape, "device": session.device, "batch_size": batch_size}

    def stack(members: int, how: str = "", threads: int = 1, copies: int = 1) -> Contender:
        per_member = _per_member(session, images, members, batch_size)
        settings = {**common, "members": members, "images": per_member, "threads": threads}
        return _trains(f"K={members}{how}", sides.engine, settings, copies)

    everyone = [stack(members) for members in _STACKS[session.device]]
    cores = hardware.cpu_count()
    if session.device == "cpu" and cores > 1:
        threads = stack(1, f", {cores} threads", threads=cores)
        everyone[1:1] = [threads, stack(1, f", {cores} processes", copies=cores)]
    return everyone


def worker_sides(
    size: Size, batch_size: int, images: int, workers: Sequence[int]
) -> list[Contender]:
    """One model on so many processes with the same global batch: DDP under Ray Train."""
    from vitbench.bench import ray_sides

    settings = {
        "batch_size": batch_size,
        "images": whole_batches(images, batch_size),
        "depth": size.depth,
        "width": size.width,
    }

    def side(count: int) -> Contender:
        name = f"{count} worker{'s' * (count > 1)}"
        return Contender(name, ray_sides.ddp, {**settings, "workers": count}, env=_NO_CLUSTER)

    return [side(count) for count in workers]


def sweep(session: Session) -> Iterator[dict[str, Any]]:
    """Sweeps a minute, from command to results; accuracies stand beside the seconds."""
    dataset = "digits" if session.quick or mnist.find(data_folder(None)) is None else "mnist"
    for trials in session.trials or ([3] if session.quick else [3, 32]):
        asked = commands.sweep_file(trials, quick=session.quick, dataset=dataset)
        # Each turn starts its own processes, as a user does: there is nothing to warm up.
        rows = session.compete(sweep_command_sides(asked), warmup=0)
        for row in rows:
            if row.rates:
                row.note = f"{1 / row.median:.0f} s; {row.note}"
                row.rates = [60 * rate for rate in row.rates]
            row.peak_gib = None  # memory lies in processes that are not the side's own
        model, train = asked["model"], asked["train"]
        yield record(
            session,
            f"sweep-{trials}",
            f"A whole sweep of {trials} trial{'s' * (trials > 1)}, ViT of {model['depth']} x "
            f"{model['width']}",
            rows,
            settings={
                "images": f"{train['train_images']} of {dataset}",
                "epochs": train["epochs"],
                "batch": train["batch_size"],
                "cores": hardware.cpu_count(),
                "rounds": session.rounds,
                "optimizer": "RAdam",
            },
            reference=_SCRIPT,
            unit="sweeps/min",
        )


def sweep_command_sides(asked: dict[str, Any]) -> list[Contender]:
    """Everyone in the order of the table; both precisions where the processor is fast in both."""

    def side(name: str, function: Callable[..., None], **settings: Any) -> Contender:
        return Contender(name, function, {"sweep": asked, **settings}, env=_NO_CLUSTER)

    everyone = [
        side(_SCRIPT, commands.script, ray=False),
        side("the same under Ray Tune", commands.script, ray=True),
        side("vitbench sweep", commands.vitbench),
    ]
    if hardware.has_amx():
        for precision in ("float32", "bfloat16"):
            name = f"vitbench sweep, {precision}"
            everyone.append(side(name, commands.vitbench, precision=precision))
    return everyone


def overhead(session: Session) -> Iterator[dict[str, Any]]:
    """Seconds that a trial of near-zero work occupies its slot."""
    slots = hardware.cpu_count()
    trials, train_trials = (8, 2) if session.quick else (32, 4)
    # Each turn starts its own worker processes, as a sweep does: there is nothing to warm up.
    rows = session.compete(overhead_sides(trials, train_trials, slots), warmup=0)
    for row in rows:
        row.rates = [slots / rate for rate in row.rates]
        row.peak_gib = None  # Ray's memory lies in processes that are not the side's own
    alone = next((row for row in rows if row.name == _ALONE and row.rates), None)
    for row in rows:
        if alone and row.rates and row is not alone:
            adds = f"adds {row.median - alone.median:.2f} s to a trial"
            row.note = f"{adds}; {row.note}" if row.note else adds
    yield record(
        session,
        "overhead",
        "A trial of near-zero work: seconds that it occupies its slot",
        rows,
        settings={
            "trials per turn": trials,
            "of Ray Train": train_trials,
            "slots": slots,
            "rounds": session.rounds,
        },
        reference="Ray Tune",
        unit="s/trial",
        higher_is_better=False,
    )


def overhead_sides(trials: int, train_trials: int, slots: int) -> list[Contender]:
    """Everyone in the order of the table; Ray Train is slow enough to be given fewer trials."""
    from vitbench.bench import ray_sides  # imports Ray

    def side(name: str, function: Callable[..., None], count: int, **more: Any) -> Contender:
        settings = {"trials": count, "slots": slots, **more}
        return Contender(name, function, settings, env=_NO_CLUSTER)

    return [
        side(_ALONE, ray_sides.no_ray, trials),
        side("vitbench sweep", ray_sides.vitbench, trials),
        side("vitbench sweep, DDP", ray_sides.vitbench, train_trials, workers=max(2, slots)),
        side("Ray Tune", ray_sides.plain_tune, trials, reuse_actors=False),
        side("Ray Tune, actors reused", ray_sides.plain_tune, trials, reuse_actors=True),
        side("Ray Train in Ray Tune", ray_sides.train_in_tune, train_trials),
    ]
