"""`python -m vitbench.sweep SWEEP.yaml`: from one file to tables, figures and a report."""

from __future__ import annotations

if __name__ == "__main__":  # the imports take a second or two
    from vitbench.net import end_at_signals

    end_at_signals()

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from vitbench import plan, user_code
from vitbench.commands import own_models
from vitbench.commands.forecast import dry_run, lack_of_room, paper_cost_s
from vitbench.commands.request import Request, Settled, new_results_dir, settle
from vitbench.commands.request import build_parser as build_parser  # as every command has one
from vitbench.config import PAPER, Sweep, load_results_sweep, resolved_yaml, setting_of
from vitbench.config.identity import ID_VERSION
from vitbench.data.image_set import ImageSet
from vitbench.data.prepare import prepare
from vitbench.errors import UserError
from vitbench.exports import tools as exports
from vitbench.hardware import cpu_count
from vitbench.net import EXIT_INTERRUPTED, ended_with, handled_by, held, net, run_as_process
from vitbench.plan import TrialConfig
from vitbench.plan.names import varying_fields
from vitbench.plan.resume import check_same, restore_record
from vitbench.records import environment, tables
from vitbench.records.files import write_atomically
from vitbench.records.history import History
from vitbench.records.ledger import Ledger
from vitbench.storage.mirror import Mirror
from vitbench.terminal.outcome_table import failures, outcome_table
from vitbench.terminal.stages import Stages
from vitbench.words import duration, printable

if TYPE_CHECKING:  # importing the first imports Ray, which bad input does not need
    from vitbench.analysis.results import Results
    from vitbench.tuning import runner

_TABLE_WIDTH = 160
_FINDINGS = 4  # so many are printed at the end
EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2


@net
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    request = Request.parse(sys.argv[1:] if argv is None else argv)
    try:
        code, folder = run(request, Console(stderr=request.json))
        if request.json and folder is not None:
            print(json.dumps(_as_json(code, folder), indent=1, allow_nan=False))
        return code
    except UserError as error:
        _say(Console(stderr=True), str(error), style="red")
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        _say(Console(stderr=True), "interrupted before anything was started", style="red")
        return EXIT_INTERRUPTED


def _as_json(code: int, folder: Path) -> dict[str, object]:
    """What `--json` prints at the end: where results are, how trials ended, what follows."""
    from vitbench.analysis import results, summary

    opened = results.load(folder)
    return {
        "exit_code": code,
        "results": str(folder),
        "report": str(folder / "report.html"),
        "trials": opened.trials["status"].value_counts().to_dict(),
        **summary.as_json(opened),
    }


def _say(console: Console, text: str, style: str | None = None) -> None:
    """Print a text as it is, on lines as long as it takes."""
    console.print(
        printable(text, keep="\n"), style=style, soft_wrap=True, highlight=False, markup=False
    )


def run(request: Request, console: Console) -> tuple[int, Path | None]:
    """Run a sweep to its report; returns the exit code, and the results folder if there is one.

    Raises:
        UserError: for a file, an option or images that cannot be used; nothing was started.
    """
    settled = settle(request)
    if not request.dry_run:
        _say(console, settled.title)  # at once: torch, Ray and images take their time
    exports.require(settled.sweep.exports)
    own = own_models.find(settled)
    try:
        prepared = prepare(own.sweep, request.data, console, download=not request.dry_run)
    except UserError as error:
        raise UserError(settled.file.located(str(error))) from error
    if not request.dry_run:
        _say(console, f"images: {prepared.images.source}")
    for note in own_models.try_out(settled, prepared.sweep, prepared.images):
        _say(console, note)
    sweep, search = prepared.sweep, prepared.sweep.search
    trials = plan.expand(sweep) if search.is_grid else []
    if request.address is None and "RAY_ADDRESS" not in os.environ:
        _require_room(settled, sweep, trials, prepared.images)
    if request.dry_run:
        told = dry_run(sweep, trials, prepared.images, title=settled.title, console=console)
        if request.json:
            print(json.dumps(asdict(told), indent=1, allow_nan=False))
        return EXIT_OK, None
    _say(console, "starting Ray" if request.address is None else f"joining Ray: {request.address}")
    with held():
        from vitbench.tuning import runner
        from vitbench.tuning.cluster.watch import RayDied

    folder = settled.resume_from or new_results_dir(settled)
    if settled.resume_from is not None:
        own_models.check_unchanged(folder, own.code)
        check_same(load_results_sweep(folder), sweep, folder)
        restore_record(folder)
    bucket = settled.bucket and settled.bucket.child(sweep.name).child(folder.name)
    job = runner.Job(
        sweep=sweep,
        trials=trials,
        fields=varying_fields(trials) if trials else _axes(sweep),
        results_dir=folder.resolve(),
        images=prepared.everything,
        bucket=bucket,
        code=own.code,
    )
    mirror = None if bucket is None else Mirror(folder, bucket)
    try:
        ending = _train(settled, job, prepared.images, mirror, console)
    except KeyboardInterrupt:
        if not folder.exists():
            raise
        text = "interrupted at once; all that was reported is kept; to go on: "
        _say(Console(stderr=True), text + request.to_go_on(folder), style="red")
        return EXIT_INTERRUPTED, folder
    except OSError as error:
        return _cannot_write(error, folder, request), None
    except RayDied as error:
        text = f"{error}; to go on: {request.to_go_on(folder)}"
        _say(Console(stderr=True), text, style="red")
        return EXIT_FAILED, None
    state = "training had been interrupted" if ending.interrupted else "training is complete"
    again = shlex.join(["vitbench", "analysis", str(folder)])
    text = f"interrupted while the report was written; {state}; to write it: {again}"
    try:
        with ended_with(printable(text)):
            code = _finish(settled, job, folder, ending, console)
            if bucket is not None and mirror is not None:
                mirror.copy()
                _say(console, f"copied to: {bucket.address}")
    except KeyboardInterrupt:
        _say(Console(stderr=True), text, style="red")
        code = EXIT_INTERRUPTED
    except OSError as error:
        return _cannot_write(error, folder, request), None
    return code, folder


def _cannot_write(error: OSError, folder: Path, request: Request) -> int:
    """Say that the disk is full, or what else cannot be written; returns the exit code."""
    text = (
        f"{error.filename or folder}: {error.strerror or error}; all that was reported is kept; "
        f"mend that, then go on: {request.to_go_on(folder)}"
    )
    _say(Console(stderr=True), text, style="red")
    return EXIT_FAILED


def _require_room(
    settled: Settled, sweep: Sweep, trials: Sequence[TrialConfig], images: ImageSet
) -> None:
    """Refuse what this machine has not the cores, the memory or the disk for."""
    wanted, there = sweep.resources.cpus_at_least, cpu_count()
    lack: str | None = (
        f"resources.cpus={wanted:g}: is more than this machine has ({there}), so nothing could "
        f"start; ask for less, or name a cluster with --address"
    )
    if wanted <= there:
        is_new = settled.bucket is None and settled.resume_from is None
        lack = lack_of_room(sweep, trials, images, settled.out if is_new else None)
    if lack is not None:
        raise UserError(settled.file.located(lack))


def _axes(sweep: Sweep) -> list[str]:
    """The settings that a search varies."""
    return list(dict.fromkeys(map(setting_of, [*sweep.search.space, *sweep.search.inner])))


def _train(
    settled: Settled, job: runner.Job, images: ImageSet, mirror: Mirror | None, console: Console
) -> runner.Ending:
    """Train what is left of the job, under the lock of its ledger.

    Where nothing was trained, for the user's mistake or an interrupt, a new results folder is
    removed again.
    """
    from vitbench.tuning import runner
    from vitbench.tuning.cluster import connect as cluster
    from vitbench.tuning.search.restore import restore_study

    request, folder, is_new = settled.request, job.results_dir, settled.resume_from is None
    try:
        with Ledger(folder / tables.LEDGER) as ledger:
            history = History.read(folder / tables.LEDGER)
            restore_study(job.sweep, folder, history, lambda text: _say(console, text))
            write_atomically(folder / "sweep.yaml", resolved_yaml(job.sweep))
            user_code.write(job.code.files, folder / own_models.CODE)
            claims = [claim.fingerprint for claim in job.sweep.claims]
            environment.write(
                folder,
                argv=request.argv,
                scale=settled.scale,
                scales=[*job.sweep.scales],
                dataset=images.name,
                image_source=images.source,
                data_checksum=images.checksum,
                images={split: len(getattr(images, split)) for split in ("train", "val", "test")},
                label_noise=images.label_noise,
                storage=None if job.bucket is None else job.bucket.address,
                id_version=ID_VERSION,
                code=own_models.facts(job.sweep, job.code),
                claims=environment.claims_at_start(folder, claims, resumed=not is_new),
                **({} if history.decided is None else {"decided": history.decided.to_json()}),
            )
            ledger.append("run", argv=list(request.argv), scale=settled.scale)
            if request.watch:
                _start_watch(folder, console)
            with mirror or contextlib.nullcontext(), contextlib.ExitStack() as ray:
                with held():
                    ray.enter_context(cluster.connect(request.address, verbose=request.verbose))
                ending = runner.run(job, ledger, history, console)
            ledger.append("event", event="end", interrupted=ending.interrupted)
    except (UserError, KeyboardInterrupt):
        if is_new and not History.read(folder / tables.LEDGER).curves:
            shutil.rmtree(folder)
        raise
    return ending


def _start_watch(folder: Path, console: Console) -> subprocess.Popen[str]:
    """Start `vitbench watch` in a process of its own, which ends with this one; say its address.

    Reading a large ledger would keep this process from its workers' reports.
    """
    words = ["-m", "vitbench.commands.watch", str(folder), "--with", str(os.getpid())]
    watch = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, text=True, start_new_session=True
    )

    def say() -> None:
        address = watch.stdout.readline().strip() if watch.stdout else ""
        if address:
            _say(console, f"watch: {address}")

    threading.Thread(target=say, daemon=True).start()
    return watch


def _finish(
    settled: Settled, job: runner.Job, folder: Path, ending: runner.Ending, console: Console
) -> int:
    """Write the tables, figures and report, print the outcome; returns the exit code.

    Ctrl-C while attention is mapped leaves the rest of that out, and the report is written.
    """
    from vitbench.analysis import results
    from vitbench.analysis.report import report

    request = settled.request
    trials, _ = tables.write(folder)
    left_out = False
    with Stages(console) as stages:
        plates = ""
        if not ending.interrupted:
            try:
                plates = _export_attention(job, folder, request.data, stages)
            except KeyboardInterrupt:
                left_out = True
        stages.now("figures and report")
        opened = results.load(folder)
        report_path = report.draw_and_write_opened(opened)[-1]
    if console.width < _TABLE_WIDTH and not console.is_terminal:
        console.width = _TABLE_WIDTH  # a pipe has no width; a squeezed table has no numbers
    title = f"{job.sweep.name}: {len(trials)} trials"
    front = tables.pareto_stacks(folder)
    console.print(outcome_table(trials, job.fields, title, front, width=console.width))
    for line in failures(trials):
        _say(console, line, style="red")
    for line in exports.export_each(job.sweep.exports, folder):
        _say(console, line)
    if settled.scale != PAPER and job.trials and not ending.interrupted:
        cost_s = paper_cost_s(settled.file.sweep(overrides=settled.overrides), job, trials)
        text = f"At --scale paper this sweep would take about {duration(cost_s)} on this machine."
        _say(console, text)
    _say_conclusions(opened, console)
    if plates:
        _say(console, plates)
    _say(console, f"results: {folder}")
    _say(console, f"report: {report_path.resolve().as_uri()}")
    if ending.gave_up is not None:
        text = f"ended early, the same crash again and again: {ending.gave_up}"
        _say(console, text, style="red")
        return EXIT_FAILED
    if ending.spent is not None:
        _say(console, f"ended: {ending.spent}; raise it and --resume to go on")
    if ending.interrupted:
        _say(console, f"to go on: {request.to_go_on(folder)}")
        return EXIT_INTERRUPTED
    if left_out:
        place, top = shlex.quote(str(folder)), job.sweep.attention.top
        text = (
            f"interrupted while attention was mapped; training is complete; to add the maps: "
            f"vitbench attention {place} --top {top} && vitbench analysis {place}"
        )
        _say(console, text, style="red")
        return EXIT_INTERRUPTED
    return EXIT_FAILED if failures(trials) else EXIT_OK


def _say_conclusions(opened: Results, console: Console) -> None:
    """Print the judged claims and the first findings."""
    from vitbench.analysis import summary
    from vitbench.analysis.findings.render import claim_sentence

    for verdict in summary.summarise(opened).claims:
        _say(console, claim_sentence(verdict))
    findings = summary.sentences(opened)
    for text in findings[:_FINDINGS]:
        _say(console, text)
    if len(findings) > _FINDINGS:
        rest = len(findings) - _FINDINGS
        _say(console, f"{rest} more finding{'s are' if rest > 1 else ' is'} in the report.")


def _export_attention(job: runner.Job, folder: Path, data_dir: Path | None, stages: Stages) -> str:
    """Write plates and scores of the best trials; returns where they are, or why there are none."""
    asked = job.sweep.attention
    if not asked.top:
        return ""
    from vitbench.attention.export import export_best  # imports torch: seconds

    def watch(what: str, done: int, total: int) -> None:
        if came:
            raise KeyboardInterrupt
        stages.now(what, done, total)

    try:
        with handled_by(signal.default_int_handler), held() as came:
            best = export_best(
                folder, top=asked.top, count=asked.images, data_dir=data_dir, watch=watch
            )
    except UserError as error:
        return f"no attention plates: {error}"
    return f"attention plates of {', '.join(best)}: {folder / 'attention'}" if best else ""


if __name__ == "__main__":
    run_as_process(main)
