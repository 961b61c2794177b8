"""`python -m vitbench.sweep SWEEP.yaml`: from one file to tables, figures and a report."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from vitbench import plan
from vitbench.config import PAPER, load_results_sweep, resolved_yaml
from vitbench.config.identity import ID_VERSION
from vitbench.data.prepare import Prepared, prepare
from vitbench.errors import UserError
from vitbench.exports import tools as exports
from vitbench.forecast import dry_run, paper_cost_s
from vitbench.plan.names import varying_fields
from vitbench.plan.resume import check_same, restore_record
from vitbench.records import environment, tables
from vitbench.records.files import write_atomically
from vitbench.records.history import History
from vitbench.records.ledger import Ledger
from vitbench.request import Request, Settled, new_results_dir, settle
from vitbench.storage.mirror import Mirror
from vitbench.terminal.outcome_table import failures, outcome_table
from vitbench.terminal.words import duration

if TYPE_CHECKING:  # importing it imports Ray, which bad input does not need
    from vitbench.tuning import runner

_TABLE_WIDTH = 160
EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    request = Request.parse(sys.argv[1:] if argv is None else argv)
    console = Console()
    try:
        return _run(request, console)
    except UserError as error:
        Console(stderr=True).print(str(error), style="red", soft_wrap=True, markup=False)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted before anything was started", style="red")
        return EXIT_INTERRUPTED


def _run(request: Request, console: Console) -> int:
    settled = settle(request)
    exports.require(settled.sweep.exports)
    prepared = prepare(settled.sweep, request.data, console, download=not request.dry_run)
    trials = plan.expand(prepared.sweep) if prepared.sweep.search.is_grid else []
    if request.dry_run:
        dry_run(prepared.sweep, trials, prepared.images, scale=settled.scale, console=console)
        return EXIT_OK
    results_dir = settled.resume_from or new_results_dir(settled)
    job = _job(settled, prepared, trials, results_dir)
    if settled.resume_from is not None:
        check_same(load_results_sweep(results_dir), job.sweep, results_dir)
        restore_record(results_dir)
    bucket = job.bucket
    mirror = None if bucket is None else Mirror(results_dir, bucket)
    ending = _train(settled, job, prepared, mirror, console)
    try:
        code = _finish(settled, job, results_dir, ending, console)
        if bucket is not None and mirror is not None:
            mirror.copy()
            text = f"copied to: {bucket.address}"
            console.print(text, soft_wrap=True, highlight=False, markup=False)
        return code
    except KeyboardInterrupt:
        state = "training had been interrupted" if ending.interrupted else "training is complete"
        again = shlex.join(["vitbench", "analysis", str(results_dir)])
        text = f"interrupted while the report was written; {state}; to write the report: {again}"
        Console(stderr=True).print(text, style="red", soft_wrap=True, markup=False)
        return EXIT_INTERRUPTED


def _job(
    settled: Settled, prepared: Prepared, trials: list[plan.TrialConfig], results_dir: Path
) -> runner.Job:
    """What the cluster is given."""
    from vitbench.tuning import runner

    search, bucket = prepared.sweep.search, settled.bucket
    return runner.Job(
        sweep=prepared.sweep,
        trials=trials,
        fields=varying_fields(trials) if trials else [*search.space, *search.inner],
        results_dir=results_dir.resolve(),
        images=prepared.everything,
        bucket=bucket and bucket.child(prepared.sweep.name).child(results_dir.name),
    )


def _train(
    settled: Settled,
    job: runner.Job,
    prepared: Prepared,
    mirror: Mirror | None,
    console: Console,
) -> runner.Ending:
    """Train what is left of the job, under the lock of its ledger.

    Where nothing was trained for the user's mistake, a new results folder is removed again.
    """
    from vitbench.tuning import runner
    from vitbench.tuning.cluster import connect as cluster
    from vitbench.tuning.search.restore import restore_study

    request, folder, images = settled.request, job.results_dir, prepared.images
    try:
        with Ledger(folder / tables.LEDGER) as ledger:
            history = History.read(folder / tables.LEDGER)
            restore_study(job.sweep, folder, history)
            write_atomically(folder / "sweep.yaml", resolved_yaml(job.sweep))
            environment.write(
                folder,
                argv=request.argv,
                scale=settled.scale,
                dataset=images.name,
                image_source=images.source,
                data_checksum=images.checksum,
                images={split: len(getattr(images, split)) for split in ("train", "val", "test")},
                label_noise=images.label_noise,
                storage=None if job.bucket is None else job.bucket.address,
                id_version=ID_VERSION,
                claims=environment.claims_at_start(
                    folder,
                    [claim.fingerprint for claim in job.sweep.claims],
                    resumed=settled.resume_from is not None,
                ),
            )
            title = f"{job.sweep.name} at scale {settled.scale}: {images.source}"
            console.print(title, soft_wrap=True, markup=False)
            ledger.append("run", argv=list(request.argv), scale=settled.scale)
            with (
                mirror or contextlib.nullcontext(),
                cluster.connect(request.address, verbose=request.verbose),
            ):
                ending = runner.run(job, ledger, history, console)
            ledger.append("event", event="end", interrupted=ending.interrupted)
    except UserError:
        if settled.resume_from is None and not History.read(folder / tables.LEDGER).curves:
            shutil.rmtree(folder)
        raise
    return ending


def _finish(
    settled: Settled, job: runner.Job, folder: Path, ending: runner.Ending, console: Console
) -> int:
    """Write the tables, figures and report, print the outcome; returns the exit code."""
    from vitbench.analysis import results, summary
    from vitbench.analysis.findings.render import claim_sentence
    from vitbench.analysis.report import report

    request = settled.request
    trials, _ = tables.write(folder)
    if not ending.interrupted:
        _export_attention(job, folder, request.data, console)
    report_path = report.draw_and_write(folder)[-1]
    if console.width < _TABLE_WIDTH and not console.is_terminal:
        console.width = _TABLE_WIDTH  # a pipe has no width; a squeezed table has no numbers
    for verdict in summary.summarise(results.load(folder)).claims:
        console.print(claim_sentence(verdict), soft_wrap=True, highlight=False, markup=False)
    title = f"{job.sweep.name}: {len(trials)} trials"
    front = tables.pareto_stacks(folder)
    console.print(outcome_table(trials, job.fields, title, front, width=console.width))
    for line in failures(trials):
        console.print(line, style="red", soft_wrap=True, markup=False)
    for line in exports.export_each(job.sweep.exports, folder):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if settled.scale != PAPER and job.trials and not ending.interrupted:
        cost_s = paper_cost_s(settled.file.sweep(overrides=settled.overrides), job, trials)
        line = f"At --scale paper this sweep would take about {duration(cost_s)} on this machine."
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"results: {folder}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"report: {report_path}", soft_wrap=True, highlight=False, markup=False)
    if ending.gave_up is not None:
        why = f"ended early, the same crash again and again: {ending.gave_up}"
        console.print(why, style="red", soft_wrap=True, markup=False)
        return EXIT_FAILED
    if ending.spent is not None:
        console.print(f"ended: {ending.spent}; raise it and --resume to go on", soft_wrap=True)
    if ending.interrupted:
        again = request.to_go_on(folder)
        console.print(f"to go on: {again}", soft_wrap=True, highlight=False, markup=False)
        return EXIT_INTERRUPTED
    return EXIT_FAILED if failures(trials) else EXIT_OK


def _export_attention(
    job: runner.Job, folder: Path, data_dir: Path | None, console: Console
) -> None:
    """Write plates and scores of the best trials; where that is impossible, print the reason."""
    settings = job.sweep.attention
    if not settings.top:
        return
    from vitbench.attention.export import export_best

    try:
        best = export_best(folder, top=settings.top, count=settings.images, data_dir=data_dir)
    except UserError as error:
        console.print(f"no attention plates: {error}", soft_wrap=True, markup=False)
    else:
        if best:
            line = f"attention plates of {', '.join(best)}: {folder / 'attention'}"
            console.print(line, soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
