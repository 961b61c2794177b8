"""What a command line of `vitbench sweep` asks for, settled step by step before anything starts."""

from __future__ import annotations

import argparse
import json
import math
import secrets
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitbench.config import EXPORTERS, PAPER, Sweep, SweepFile
from vitbench.errors import UserError
from vitbench.hardware import local_gpu_count
from vitbench.options import Parser
from vitbench.plan.resume import find
from vitbench.records import environment
from vitbench.storage.mirror import fetch_latest
from vitbench.storage.place import Place, is_bucket

_MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Request:
    """A command line, word for word (see `build_parser`)."""

    file: Path
    out: Path | None
    data: Path | None
    scale: str
    overrides: tuple[str, ...]
    seeds: int | None
    sizes: int | None
    dry_run: bool
    resume: str | None
    exports: tuple[str, ...]
    address: str | None
    verbose: bool
    json: bool
    watch: bool
    argv: tuple[str, ...]

    @classmethod
    def parse(cls, argv: Sequence[str]) -> Request:
        """Read a command line; ends the process with a usage message where it cannot be read."""
        words: dict[str, Any] = vars(build_parser().parse_args(argv))
        for name in ("overrides", "exports"):
            words[name] = tuple(words[name])
        return cls(**words, argv=tuple(argv))

    def to_go_on(self, results_dir: Path) -> str:
        """The command that goes on with a run of this one: the same, naming its folder."""
        words = list(self.argv)
        if "--resume" in words:
            at = words.index("--resume")
            named = at + 1 < len(words) and Path(words[at + 1]).is_dir()
            del words[at : at + 1 + named]
        return shlex.join([*_program(), *words, "--resume", str(results_dir)])


def _program() -> list[str]:
    """This program as it was called: `vitbench sweep`, or some Python with `-m vitbench.sweep`."""
    called = Path(sys.argv[0])
    if called.name == "vitbench":
        on_path = shutil.which("vitbench")
        same = on_path is not None and Path(on_path).absolute() == called.absolute()
        return ["vitbench" if same else str(called), "sweep"]
    return [sys.orig_argv[0], "-m", "vitbench.sweep"]


@dataclass(frozen=True)
class Settled:
    """A request with everything decided that the file, the machine and earlier runs decide."""

    request: Request
    file: SweepFile
    overrides: tuple[str, ...]  # with what --seeds, --sizes and --export stand for
    sweep: Sweep  # the file's at this scale, with the overrides
    scale: str
    out: Path  # holds the results folders of sweeps
    resume_from: Path | None  # the results folder to go on with; None for a new one
    bucket: Place | None  # where results go to one

    @property
    def title(self) -> str:
        """The sweep's name, and its scale where the file has several."""
        return f"{self.sweep.name} at scale {self.scale}" if self.sweep.scales else self.sweep.name


def settle(request: Request) -> Settled:
    """Decide scale, overrides, storage and the run to go on with; reads, and starts nothing.

    Raises:
        UserError: for a sweep file, an option or a results folder that cannot be used.
    """
    file = SweepFile.read(request.file)
    written = file.sweep(overrides=request.overrides)
    overrides = request.overrides
    if request.seeds is not None:
        if not 1 <= request.seeds <= _MOST_SEEDS:
            count = request.seeds
            raise UserError(f"--seeds {count}: name 1 or more, and at most {_MOST_SEEDS:,}")
        # The grid's own axis, or models that a suggestion trains together.
        key = "search.space.seed" if written.search.is_grid else "search.inner.seed"
        overrides += (f"{key}={list(range(request.seeds))}",)
    if request.exports:
        exports = list(dict.fromkeys([*written.exports, *request.exports]))
        overrides += (f"exports={json.dumps(exports)}",)
    out, bucket = _place(request, written)
    resume_from = None
    if request.resume:
        if bucket is not None:
            fetch_latest(bucket, out, written.name)
        resume_from = find(out, written.name, request.resume)
    scale = _scale(request, written, resume_from)
    sweep = file.sweep(scale=scale, overrides=overrides)
    if request.sizes is not None:
        # The number that the command line may give has become the largest size.
        kept = (text for text in overrides if not text.startswith("train.train_images="))
        overrides = (*kept, f"search.space.train_images={_sizes(request.sizes, sweep)}")
        sweep = file.sweep(scale=scale, overrides=overrides)
    return Settled(request, file, overrides, sweep, scale, out, resume_from, bucket)


def _sizes(count: int, sweep: Sweep) -> list[int]:
    """So many numbers of training images, each half of the next; the last is the sweep's own."""
    own = sweep.search.space.get("train_images", [sweep.train.train_images])
    largest = max((size for size in own if isinstance(size, int)), default=None)
    if count < 2:
        raise UserError(f"--sizes {count}: is not a number of sizes to compare; name 2 or more.")
    if not sweep.search.is_grid:
        rule = f"a search ({sweep.search.method}) suggests one size at a time"
        raise UserError(f"--sizes {count}: {rule}; use a grid.")
    if largest is None:
        rule = "the sweep does not say how many training images the largest size has"
        raise UserError(f"--sizes {count}: {rule}; add --set train.train_images=N.")
    batches = sweep.search.space.get("batch_size", [sweep.train.batch_size])
    fewest = max(size for size in batches if isinstance(size, int))
    sizes = [round(largest / 2**halvings) for halvings in reversed(range(count))]
    if sizes[0] < fewest:
        fits = int(math.log2(largest / fewest)) + 1
        raise UserError(
            f"--sizes {count}: the smallest would have {sizes[0]} images, fewer than a batch of "
            f"{fewest}; use at most {fits}."
        )
    return sizes


def _scale(request: Request, sweep: Sweep, resume_from: Path | None) -> str:
    """The scale asked for; `auto` is that of the run to go on with, else what the hardware bears.

    That is the paper's on a GPU or a joined cluster, else `laptop`, where the file has it.
    """
    if request.scale != "auto":
        return request.scale
    if resume_from is not None and (scale := environment.read(resume_from).get("scale")):
        return str(scale)
    on_gpu = request.address is not None or local_gpu_count() > 0
    return PAPER if on_gpu or "laptop" not in sweep.scales else "laptop"


def _place(request: Request, sweep: Sweep) -> tuple[Path, Place | None]:
    """Where results go on this machine's disks or its network file systems, and to which bucket."""
    if sweep.storage is None:
        return request.out or Path("results"), None
    if is_bucket(sweep.storage):
        return request.out or Path("results"), Place.bucket(sweep.storage)
    if request.out is not None:
        raise UserError(
            f"--out {request.out}: the sweep already says where results go (storage: "
            f"{sweep.storage}); leave out one of them"
        )
    return Path(sweep.storage).expanduser().resolve(), None


def new_results_dir(settled: Settled) -> Path:
    """Make `<out>/<name>/<UTC time>-<4 hex digits>`, which did not exist before."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    path = settled.out / settled.sweep.name / f"{stamp}-{secrets.token_hex(2)}"
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"--out {settled.out}: cannot make the results folder {path} ({error.strerror}); "
            f"name a folder that you may write to."
        ) from error
    return path


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m vitbench.sweep`."""
    parser = Parser(
        prog="vitbench sweep",
        description="Run the sweep of a YAML file; end with tables, figures and a report.",
        epilog="Exit codes: 0 all trials accounted for; 1 some trial failed; 2 bad input, nothing "
        "started; 130 interrupted.",
    )
    add = parser.add_argument
    add("file", type=Path, metavar="SWEEP.yaml", help="the sweep file")
    text = "where results go (default: results, or the path that `storage:` in the file names)"
    add("--out", type=Path, help=text)
    add("--data", type=Path, help="folder that holds the data sets (default: $VITBENCH_DATA)")
    text = "a scale of the sweep file; auto (default) is paper on a GPU, laptop without one"
    add("--scale", default="auto", help=text)
    several: dict[str, Any] = {"action": "append", "default": []}
    text = "override one value, e.g. --set train.epochs=2 (repeatable)"
    add("--set", dest="overrides", metavar="KEY=VALUE", help=text, **several)
    text = "repeat the sweep with seeds 0 to N-1; three give intervals, six can give p < 0.05"
    add("--seeds", type=int, metavar="N", help=text)
    text = "repeat the sweep with N numbers of training images, each half of the next"
    add("--sizes", type=int, metavar="N", help=text)
    text = "show trials, stacks and a time forecast; no cluster"
    add("--dry-run", action="store_true", help=text)
    text = "go on with a run: the latest of this sweep under --out, or the folder named"
    add("--resume", nargs="?", const="latest", metavar="RESULTS", help=text)
    text = "also write a run per model for this tool (repeatable; `exports:` in the file)"
    add("--export", dest="exports", choices=EXPORTERS, help=text, **several)
    add("--address", help="a running Ray cluster to join, e.g. auto")
    text = "print the outcome as one JSON object on standard output, all else on standard error"
    add("--json", action="store_true", help=text)
    text = "serve the report to browsers on this machine while the sweep runs (vitbench watch)"
    add("--watch", action="store_true", help=text)
    add("--verbose", action="store_true", help="show what Ray says, too")
    return parser
