"""`python -m vitbench.sweep SWEEP.yaml`: from one file to tables, figures and a report."""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from vitbench import data
from vitbench.config import EXPORTERS, PAPER, Sweep, load_sweep, resolved_yaml
from vitbench.data.prepare import check_labels, prepare, with_images
from vitbench.errors import UserError
from vitbench.exports import exporters as exports
from vitbench.forecast import paper_cost_s
from vitbench.hardware import local_gpu_count
from vitbench.plan import trials as plan
from vitbench.plan.resume import check_same, find
from vitbench.records import environment, tables
from vitbench.records.files import write_atomically
from vitbench.records.history import History
from vitbench.records.ledger import Ledger
from vitbench.storage.mirror import Mirror, fetch_latest
from vitbench.storage.place import Place, is_bucket
from vitbench.terminal.outcome_table import failures, outcome_table, varying_fields
from vitbench.terminal.progress import duration

if TYPE_CHECKING:  # importing it imports Ray, which bad input does not need
    from vitbench.tuning import runner

_TABLE_WIDTH = 160
EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m vitbench.sweep`."""
    parser = argparse.ArgumentParser(
        prog="vitbench sweep",
        description="Run the sweep of a YAML file; end with tables, figures and a report.",
        epilog="Exit codes: 0 all trials accounted for; 1 some trial failed; 2 bad input, nothing "
        "started; 130 interrupted.",
    )
    parser.add_argument("file", type=Path, metavar="SWEEP.yaml", help="the sweep file")
    parser.add_argument(
        "--out",
        type=Path,
        help="where results go (default: results, or the path that `storage:` in the file names)",
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
        "--seeds",
        type=int,
        metavar="N",
        help="repeat the sweep with seeds 0 to N-1; three give intervals, six can give p < 0.05",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show trials, stacks and a time forecast; no cluster"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="latest",
        metavar="RESULTS",
        help="go on with a run: the latest of this sweep under --out, or the folder named",
    )
    parser.add_argument(
        "--export",
        dest="exports",
        action="append",
        default=[],
        choices=EXPORTERS,
        help="also write a run per model for this tool (repeatable; `exports:` in the file)",
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
    data_dir = data.data_folder(args.data).resolve()
    sweep, scale = _load(args)
    exports.require(sweep.exports)
    bucket = _bucket(sweep)
    resume_from = find(args.out, sweep.name, args.resume) if args.resume else None
    resolved = data.resolve(sweep.dataset, data_dir)
    if resolved.notice:
        console.print(resolved.notice, style="bold yellow", soft_wrap=True, markup=False)
    everything = prepare(resolved.dataset, data_dir, console)
    sweep = with_images(sweep, resolved.dataset, everything, substitute=resolved.notice is not None)
    train = sweep.train
    images = everything.subset(train.train_images, train.val_images, train.test_images)
    trials = plan.expand(sweep) if sweep.search.is_grid else []
    check_labels(sweep, images)

    if args.dry_run:
        from vitbench.forecast import dry_run

        dry_run(sweep, trials, images, scale=scale, console=console)
        return EXIT_OK

    from vitbench.tuning import runner
    from vitbench.tuning.cluster import connect as cluster

    results_dir = resume_from or _new_results_dir(args.out, sweep)
    if bucket is not None:
        bucket = bucket.child(sweep.name).child(results_dir.name)
    mirror = None if bucket is None else Mirror(results_dir, bucket)
    with Ledger(results_dir / tables.LEDGER) as ledger:
        if resume_from is not None:
            before = load_sweep(results_dir / "sweep.yaml")
            check_same(before, sweep, results_dir)
        history = History.read(results_dir / tables.LEDGER)
        write_atomically(results_dir / "sweep.yaml", resolved_yaml(sweep))
        environment.write(
            results_dir,
            argv=argv,
            scale=scale,
            dataset=images.name,
            image_source=images.source,
            data_checksum=images.checksum,
            label_noise=images.label_noise,
            storage=None if bucket is None else bucket.address,
        )
        console.print(
            f"{sweep.name} at scale {scale}: {images.source}", soft_wrap=True, markup=False
        )
        job = runner.Job(
            sweep=sweep,
            trials=trials,
            fields=varying_fields(trials) if trials else [*sweep.search.space, *sweep.search.stack],
            results_dir=results_dir.resolve(),
            images=everything,
            bucket=bucket,
        )
        ledger.append("run", argv=list(argv), scale=scale)
        try:
            with (
                mirror or contextlib.nullcontext(),
                cluster.connect(args.address, verbose=args.verbose),
            ):
                ending = runner.run(job, ledger, history, console)
        except UserError:
            if resume_from is None:  # nothing was started: leave nothing behind
                shutil.rmtree(results_dir)
            raise
        ledger.append("event", event="end", interrupted=ending.interrupted)
    code = _finish(job, ending, results_dir, scale, args, argv, console)
    if bucket is not None and mirror is not None:
        mirror.copy()
        console.print(f"copied to: {bucket.address}", soft_wrap=True, highlight=False, markup=False)
    return code


def _bucket(sweep: Sweep) -> Place | None:
    """The bucket that `storage:` names, if it names one."""
    if sweep.storage is None or not is_bucket(sweep.storage):
        return None
    return Place.bucket(sweep.storage)


def _settle_out(args: argparse.Namespace, sweep: Sweep) -> None:
    """Fill in --out: where results go on this machine's disks or its network file systems."""
    if sweep.storage is None or is_bucket(sweep.storage):
        args.out = args.out or Path("results")
    elif args.out is not None:
        raise UserError(
            f"--out {args.out}: the sweep already says where results go (storage: "
            f"{sweep.storage}); leave out one of them"
        )
    else:
        args.out = Path(sweep.storage).expanduser().resolve()
    bucket = _bucket(sweep)
    if args.resume and bucket is not None:
        fetch_latest(bucket, args.out, sweep.name)


def _load(args: argparse.Namespace) -> tuple[Sweep, str]:
    """Read the file at the scale asked for.

    `auto` is the scale of the run that is resumed; else the paper's on a GPU or a joined cluster;
    else `laptop`, where the file has it.
    """
    as_written = load_sweep(args.file, overrides=args.overrides)
    if args.seeds is not None:
        args.overrides = [*args.overrides, _seeds_override(as_written, args.seeds)]
    _settle_out(args, as_written)
    scale = args.scale
    if scale == "auto" and args.resume:
        folder = find(args.out, as_written.name, args.resume)
        scale = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["scale"]
    elif scale == "auto":
        on_gpu = args.address is not None or local_gpu_count() > 0
        scale = PAPER if on_gpu or "laptop" not in as_written.scales else "laptop"
    if args.exports:
        named = dict.fromkeys([*as_written.exports, *args.exports])
        args.overrides = [*args.overrides, f"exports={json.dumps(list(named))}"]
    return load_sweep(args.file, scale=scale, overrides=args.overrides), scale


def _seeds_override(sweep: Sweep, count: int) -> str:
    """What --seeds stands for: the grid's own axis, or models that a suggestion trains together."""
    if count < 1:
        raise UserError(f"--seeds {count}: is not a number of seeds; name 1 or more.")
    key = "search.space.seed" if sweep.search.is_grid else "search.stack.seed"
    return f"{key}={list(range(count))}"


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
    job: runner.Job,
    ending: runner.Ending,
    results_dir: Path,
    scale: str,
    args: argparse.Namespace,
    argv: Sequence[str],
    console: Console,
) -> int:
    """Write the tables, figures and report, print the outcome; returns the exit code."""
    from vitbench.analysis.report import report

    trials, _ = tables.write(results_dir)
    if not ending.interrupted:
        _export_attention(job, results_dir, args.data, console)
    report_path = report.draw_and_write(results_dir)[-1]
    if console.width < _TABLE_WIDTH and not console.is_terminal:
        console.width = _TABLE_WIDTH  # a pipe has no width; a squeezed table has no numbers
    title = f"{job.sweep.name}: {len(trials)} trials"
    front = tables.pareto_stacks(results_dir)
    console.print(outcome_table(trials, job.fields, title, front, width=console.width))
    for line in failures(trials):
        console.print(line, style="red", soft_wrap=True, markup=False)
    if scale != PAPER and job.trials and not ending.interrupted:
        cost_s = paper_cost_s(args.file, args.overrides, job, trials)
        console.print(
            f"At --scale paper this sweep would take about {duration(cost_s)} on this machine.",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"results: {results_dir}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"report: {report_path}", soft_wrap=True, highlight=False, markup=False)
    if ending.gave_up is not None:
        why = f"ended early, the same crash again and again: {ending.gave_up}"
        console.print(why, style="red", soft_wrap=True, markup=False)
        return EXIT_FAILED
    if ending.spent is not None:
        console.print(f"ended: {ending.spent}; raise it and --resume to go on", soft_wrap=True)
    if ending.interrupted:
        again = _resume_command(argv, results_dir)
        console.print(f"to go on: {again}", soft_wrap=True, highlight=False, markup=False)
        return EXIT_INTERRUPTED
    return EXIT_FAILED if failures(trials) else EXIT_OK


def _export_attention(
    job: runner.Job, results_dir: Path, data_dir: Path | None, console: Console
) -> None:
    """Plates and scores of the best trials; what cannot be exported is said, not fatal."""
    settings = job.sweep.attention
    if not settings.top:
        return
    from vitbench.attention.export import export_best

    try:
        best = export_best(results_dir, top=settings.top, count=settings.images, data_dir=data_dir)
    except UserError as error:
        console.print(f"no attention plates: {error}", soft_wrap=True, markup=False)
    else:
        if best:
            said = f"attention plates of {', '.join(best)}: {results_dir / 'attention'}"
            console.print(said, soft_wrap=True, highlight=False, markup=False)


def _resume_command(argv: Sequence[str], results_dir: Path) -> str:
    """The command that goes on with this run: the same one, naming the folder."""
    words = list(argv)
    if "--resume" in words:
        at = words.index("--resume")
        named = at + 1 < len(words) and Path(words[at + 1]).is_dir()
        del words[at : at + 1 + named]
    return shlex.join(["python", "-m", "vitbench.sweep", *words, "--resume", str(results_dir)])


if __name__ == "__main__":
    sys.exit(main())
