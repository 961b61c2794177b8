"""`bench figure5`: the paper's Figure 5 as one run on one device, in this process, without Ray.

benchmarks/RECORD.md states the rules; the command says the row for its table.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

import torch

from vitbench import data
from vitbench.bench.contest import Memory, Row
from vitbench.bench.report import number, record
from vitbench.bench.session import Session
from vitbench.bench.sides import tiled_digits
from vitbench.config import Dataset, Model, Precision, Train, TrialConfig
from vitbench.data.image_set import ImageSet
from vitbench.plan import StackPlan, train_flops
from vitbench.records.types import EpochRow
from vitbench.training.engine import EpochReport, fit

RATES = (0.003, 0.0003, 0.00003)
EPOCHS, TRAIN_IMAGES, VAL_IMAGES = 200, 50_000, 10_000
# What is run where nothing is asked for: all of it takes a GPU minutes, and a core days.
_FRACTION = {"cuda": 1.0, "cpu": 0.0002}
_QUICK_FRACTION = 5e-6
_TEST_IMAGES = 16  # judged like validation images by the engine, and no part of the record

# TFLOP/s of dense bfloat16 matrix products that are summed in float32, by the maker's data sheets,
# which name twice as much for sparse matrices. The first name that a card's has in it counts; a
# card that is not here has no utilisation, unless --peak-tflops says what it can do.
_PEAK_TFLOPS = (
    ("H100 PCIe", 756),
    ("H100 NVL", 835),
    ("H200 NVL", 835),
    ("GH200", 989),
    ("H200", 989),
    ("H100", 989),
    ("B200", 2250),
    ("A100", 312),
    ("L40S", 362),
    ("L4", 121),
    ("A10", 125),
    ("A40", 149.7),
    ("RTX A6000", 154.8),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71),
)


class Part(NamedTuple):
    """How much of the record is run."""

    epochs: int
    train_images: int
    val_images: int


def part(fraction: float) -> Part:
    """So many of the 200 epochs; below one epoch, one of so many fewer images."""
    epochs = fraction * EPOCHS
    share = min(1.0, epochs)
    images = (max(1, round(share * count)) for count in (TRAIN_IMAGES, VAL_IMAGES))
    return Part(max(1, round(epochs)), *images)


def peak_tflops(card: str) -> float | None:
    """What a card can do by its name; None for one that is not known, and for a slice of one."""
    if "MIG" in card:
        return None
    return next(
        (peak for name, peak in _PEAK_TFLOPS if re.search(rf"\b{re.escape(name)}\b", card)), None
    )


def measure(session: Session) -> Iterator[dict[str, Any]]:
    """A record for each batch size: three learning rates as one stack, judged each epoch."""
    for batch_size in session.batch_sizes:
        yield _run(session, batch_size)


def _run(session: Session, batch_size: int) -> dict[str, Any]:
    fraction = session.fraction or (_QUICK_FRACTION if session.quick else _FRACTION[session.device])
    asked, device = part(fraction), torch.device(session.device)
    torch.set_num_threads(session.threads)
    dataset = Dataset(name="digits" if session.quick else "mnist")
    images = _images(dataset, asked)
    plan = _plan(dataset, asked, batch_size, session.precision)
    torch.zeros(1, device=device)  # the device is there before the clock starts
    if session.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    rows: list[EpochRow] = []
    rates: list[float] = []

    def report(epoch: EpochReport) -> bool:
        rows.extend(epoch.rows)
        rates.append(epoch.images_per_s)
        losses = ", ".join(f"{row.train_loss:.4f}" for row in epoch.rows)
        session.on_progress(
            f"epoch {epoch.epoch}/{asked.epochs}  {epoch.images_per_s:,.0f} images/s, training "
            f"loss {losses}"
        )
        return True

    memory = Memory()
    start_s = time.perf_counter()
    done = fit(
        plan,
        images,
        device=device,
        report=report,
        compile=session.compile,
        precision=session.precision,
    )
    took_s = time.perf_counter() - start_s
    trained = len(RATES) * asked.epochs * asked.train_images
    flops = sum(train_flops(member, images=asked.train_images) for member in plan.members)
    peak = session.peak_tflops or peak_tflops(session.hardware)
    row = Row("vitbench", [trained / took_s], peak_gib=memory.peak_gib())
    row.parameters = done.trials[0].parameters
    numbers: dict[str, Any] = {
        "time": f"{number(took_s)} s",
        "fraction": f"{fraction:g}",
        "batch": batch_size,
        "compiled": "yes" if session.compile else "no",
        "images": f"{asked.train_images:,} of {images.name} x {asked.epochs} epochs x 3 rates",
        "images/s of the epochs' training alone": f"{statistics.median(rates):,.0f}",
        "TFLOP/s": number(flops / took_s / 1e12),
        "model FLOPs utilisation": f"{flops / took_s / peak / 1e10:.1f} %" if peak else "not known",
        "of peak TFLOP/s": "not known" if peak is None else f"{peak:g}",
        "precision": done.trials[0].precision_used,
        "threads": session.threads,
    }
    for name in ("train_loss", "val_loss", "val_accuracy"):
        values = [getattr(trial, name) for trial in done.trials]
        numbers[name] = " / ".join(f"{value:.4f}" for value in values)
    how = "-compiled" if session.compile else ""
    found = record(
        session,
        f"figure5-b{batch_size}{how}",
        f"Figure 5, batch {batch_size}{', compiled' if session.compile else ''}: three learning "
        f"rates, {fraction:g} of 200 epochs",
        [row],
        settings=numbers,
        reference="vitbench",
    )
    session.on_progress(f"row for benchmarks/RECORD.md:\n{table_row(found)}")
    return {**found, "epochs": [_curve(of_epoch) for of_epoch in rows]}


def _images(dataset: Dataset, asked: Part) -> ImageSet:
    if dataset.name == "digits":
        return tiled_digits(asked.train_images)
    images = data.load(data.resolve(dataset, None).dataset, None)
    return images.subset(asked.train_images, asked.val_images, _TEST_IMAGES)


def _plan(dataset: Dataset, asked: Part, batch_size: int, precision: Precision) -> StackPlan:
    """The three models, in the settings of sweeps/mnist_lr.yaml."""
    shared: dict[str, Any] = {"epochs": asked.epochs, "batch_size": batch_size}
    shared |= {"precision": precision, "train_images": asked.train_images}
    trains = [Train(lr=lr, **shared) for lr in RATES]
    model = Model(mlp=768)
    return StackPlan(tuple(TrialConfig(dataset=dataset, model=model, train=t) for t in trains))


def _curve(row: EpochRow) -> dict[str, Any]:
    names = ("trial_id", "epoch", "train_loss", "val_loss", "val_accuracy", "epoch_s")
    return {name: asdict(row)[name] for name in names}


def table_row(found: dict[str, Any]) -> str:
    """The row of a record for the table of benchmarks/RECORD.md."""
    numbers, (row,), facts = found["settings"], found["rows"], found["environment"]
    columns = ("fraction", "batch", "compiled", "time")
    losses = ("train_loss", "val_loss", "val_accuracy")
    cells = [
        found["hardware"],
        *(str(numbers[name]) for name in columns),
        number(row["median"]),
        numbers["model FLOPs utilisation"],
        f"{row['peak_gib']:.2f}",
        *(numbers[name] for name in losses),
        f"{numbers['precision']}, torch {facts['packages']['torch']}, "
        f"{(facts['git_commit'] or 'no commit')[:12]}, {facts['time_utc'][:10]}",
    ]
    return f"| {' | '.join(cells)} |"
