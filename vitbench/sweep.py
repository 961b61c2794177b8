"""`python -m vitbench.sweep SWEEP.yaml`: from one file to tables and figures."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from vitbench import data, plan
from vitbench.config import PAPER, Dataset, Sweep, load_sweep, resolved_yaml
from vitbench.data import ImageSet
from vitbench.errors import UserError
from vitbench.forecast import paper_cost_s
from vitbench.hardware import local_gpu_count
from vitbench.outcome import failures, outcome_table, varying_fields
from vitbench.records import environment, tables
from vitbench.records.ledger import Ledger
from vitbench.tuning.progress import duration

if TYPE_CHECKING:  # importing it imports Ray, which bad input does not need
    from vitbench.tuning import runner

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m vitbench.sweep`."""
    parser = argparse.ArgumentParser(
        prog="vitbench sweep",
        description="Run the sweep described in a YAML file; end with tables and figures.",
        epilog="Exit codes: 0 all trials accounted for; 1 some trial failed; 2 bad input, nothing "
        "started; 130 interrupted.",
    )
    parser.add_argument("file", type=Path, metavar="SWEEP.yaml", help="the sweep file")
    parser.add_argument(
        "--out", type=Path, default=Path("results"), help="where results go (default: results)"
    )
    parser.add_argument(
        "--data", type=Path, help="folder that holds the data sets (default: $VITBENCH_DATA)"
    )
    parser.add_argument(
        "--scale",
        default="auto",
        help="a scale of the sweep file; auto (default) is paper on a GPU, laptop without one",
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one value, e.g. --set train.epochs=2 (repeatable)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show trials, stacks and a time forecast; no cluster"
    )
    parser.add_argument("--address", help="a running Ray cluster to join, e.g. auto")
    parser.add_argument("--verbose", action="store_true", help="show what Ray says, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    console = Console()
    try:
        return _run(args, console, list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        Console(stderr=True).print(str(error), style="red", soft_wrap=True, markup=False)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted before anything was started", style="red")
        return EXIT_INTERRUPTED


def _run(args: argparse.Namespace, console: Console, argv: Sequence[str]) -> int:
    sweep, scale = _load(args)
    resolved = data.resolve(sweep.dataset, args.data)
    if resolved.notice:
        console.print(resolved.notice, style="bold yellow", soft_wrap=True, markup=False)
    images = data.load(resolved.dataset, args.data)
    sweep = with_images(sweep, resolved.dataset, images, substitute=resolved.notice is not None)
    images = images.subset(
        sweep.train.train_images, sweep.train.val_images, sweep.train.test_images
    )
    trials = plan.expand(sweep)

    if args.dry_run:
        from vitbench.forecast import dry_run

        dry_run(sweep, trials, images, scale=scale, console=console)
        return EXIT_OK

    from vitbench.tuning import cluster, runner

    results_dir = _new_results_dir(args.out, sweep)
    (results_dir / "sweep.yaml").write_text(resolved_yaml(sweep), encoding="utf-8")
    environment.write(
        results_dir,
        argv=argv,
        scale=scale,
        dataset=images.name,
        image_source=images.source,
        data_checksum=images.checksum,
    )
    console.print(f"{sweep.name} at scale {scale}: {images.source}", soft_wrap=True, markup=False)
    job = runner.Job(
        sweep=sweep, trials=trials, results_dir=results_dir, data_dir=args.data, cache_dir=None
    )
    with Ledger(results_dir / tables.LEDGER) as ledger:
        ledger.append("run", argv=list(argv), scale=scale)
        with cluster.connect(args.address, verbose=args.verbose):
            ending = runner.run(job, ledger, console)
    return _finish(job, ending, scale, args, console)


def with_images(sweep: Sweep, dataset: Dataset, images: ImageSet, *, substitute: bool) -> Sweep:
    """The sweep with the data set that is really used and its numbers of images written out.

    A substitute is smaller than what the sweep was written for: it is used whole where the sweep
    asks for more. Otherwise asking for more images than there are is the user's error.
    """
    counts = {}
    for split in ("train", "val", "test"):
        asked = getattr(sweep.train, f"{split}_images")
        there = len(getattr(images, split))
        counts[f"{split}_images"] = (
            there if asked is None or (substitute and asked > there) else asked
        )
    train = sweep.train.model_copy(update=counts)
    return sweep.model_copy(update={"dataset": dataset, "train": train})


def _load(args: argparse.Namespace) -> tuple[Sweep, str]:
    """Read the file at the scale asked for; `auto` follows the hardware."""
    scale = args.scale
    if scale == "auto":
        on_gpu = args.address is not None or local_gpu_count() > 0
        scale = "paper" if on_gpu else "laptop"
    return load_sweep(args.file, scale=scale, overrides=args.overrides), scale


def _new_results_dir(out: Path, sweep: Sweep) -> Path:
    """Make `<out>/<name>/<UTC time>-<4 hex digits>`, which did not exist before."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    path = out / sweep.name / f"{stamp}-{secrets.token_hex(2)}"
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"--out {out}: cannot make the results folder {path} ({error.strerror}); "
            f"name a folder that you may write to."
        ) from error
    return path


def _finish(
    job: runner.Job, ending: runner.Ending, scale: str, args: argparse.Namespace, console: Console
) -> int:
    """Write the tables and figures, print the outcome; returns the exit code."""
    from vitbench.analysis import figures

    trials, _ = tables.write(job.results_dir)
    figures.draw_all(job.results_dir)
    title = f"{job.sweep.name}: {len(trials)} trials"
    console.print(outcome_table(trials, varying_fields(job.trials), title))
    for line in failures(trials):
        console.print(line, style="red", soft_wrap=True, markup=False)
    if scale != PAPER and not ending.interrupted:
        cost_s = paper_cost_s(args.file, args.overrides, job, trials)
        console.print(
            f"At --scale paper this sweep would take about {duration(cost_s)} on this machine.",
            highlight=False,
        )
    console.print(f"results: {job.results_dir}", soft_wrap=True, highlight=False, markup=False)
    if ending.gave_up is not None:
        console.print(f"ended early: the same crash again and again: {ending.gave_up}", style="red")
        return EXIT_FAILED
    if ending.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if failures(trials) else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
