"""`vitbench doctor`: is this machine ready, and what would mend it?

One line per check, `ok`, `warn` or `fail`; a line that is not ok ends with what to do. Exit code 0
where nothing failed, 1 where something did.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from vitbench import __version__, hardware
from vitbench.errors import UserError, in_a_line
from vitbench.options import Parser

_GIB = 1024**3
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
# Below these a laptop-scale sweep has been seen to run out.
_MIN_MEMORY_GIB = 4
_MIN_SHM_GIB = 1
_MIN_DISK_GIB = 2
_REINSTALL = "pip install -c constraints.txt -e ."


@dataclass(frozen=True)
class Finding:
    """What one check saw of its subject."""

    state: Literal["ok", "warn", "fail"]  # warn: slower, or something is missing; fail: no sweeps
    subject: str
    detail: str
    fix: str = ""  # what to do about it; empty when ok


def _expect(fine: bool, subject: str, detail: str, fix: str) -> Finding:
    """Ok, or a warning with what mends it."""
    return Finding("ok", subject, detail) if fine else Finding("warn", subject, detail, fix)


def python() -> Iterator[Finding]:
    """The interpreter and this package."""
    detail = f"{platform.python_version()} at {sys.executable}, vitbench {__version__}"
    yield Finding("ok", "python", detail)


def packages() -> Iterator[Finding]:
    """Each package that vitbench needs: installed, and in the range that it was built for?"""
    from packaging.requirements import Requirement

    try:
        required = metadata.requires("vitbench") or []
    except metadata.PackageNotFoundError:
        yield Finding("fail", "packages", "vitbench is not installed", "pip install -e .")
        return
    fine, broken = [], []
    for line in required:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            broken.append(f"{requirement.name} is missing")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            fine.append(f"{requirement.name} {version}")
        else:
            broken.append(f"{requirement.name} {version} is outside {requirement.specifier}")
    if broken:
        yield Finding("fail", "packages", "; ".join(broken), _REINSTALL)
    yield Finding("ok", "packages", ", ".join(fine))


def imports() -> Iterator[Finding]:
    """Do the heavy packages really import here? A torch and torchvision that differ do not."""
    modules = ("torch", "vitbench.torchvision_import", "vitbench.tuning.cluster.connect")
    for name, module in zip(("torch", "torchvision", "ray"), modules, strict=True):
        start_s = time.perf_counter()
        try:
            loaded = importlib.import_module(module)
            if name == "torchvision":
                loaded.torchvision()
        except Exception as error:  # whatever it dies of is the finding
            yield Finding("fail", f"import {name}", in_a_line(error), _REINSTALL)
        else:
            yield Finding("ok", f"import {name}", f"{time.perf_counter() - start_s:.1f} s")


def cores() -> Iterator[Finding]:
    """Cores that this process may use."""
    count = hardware.cpu_count()
    detail = f"{count} usable of {os.cpu_count()}"
    if hardware.has_amx():
        detail += "; AMX: sweeps train in bfloat16, 1.5 to 2 times as fast"
    quota = _cgroup_cpus(Path("/sys/fs/cgroup/cpu.max")) or count
    if quota < count:
        detail += f", but the container's quota is {quota:g}"
    fix = "trials side by side will wait for each other; limit them: "
    fix += f"taskset -c 0-{max(1, int(quota)) - 1} vitbench sweep ..."
    yield _expect(quota >= count, "cores", detail, fix)


def gpu_programs() -> Finding:
    """Whether vitbench's own programs for the GPU can be built, and compute what torch does."""
    import torch

    from vitbench.kernels import check, ops

    if not ops.installed():
        fix = "pip install triton; without it ViTs train on the GPU all the same, more slowly"
        return Finding("warn", "gpu programs", "Triton is not installed", fix)
    fix = "Triton needs a C compiler (apt install gcc); without it ViTs train more slowly"
    agrees = check.adam_agrees(torch.device("cuda"))  # its own warning says why not
    detail = "built, and equal to torch's operations" if agrees else "not used on this GPU"
    return _expect(agrees, "gpu programs", detail, fix)


def gpu() -> Iterator[Finding]:
    """GPUs, and whether this build of torch can use them."""
    import torch

    present = hardware.local_gpu_count()
    built_for = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            detail = f"{gpu.name}, {gpu.total_memory / _GIB:.0f} GiB, "
            detail += f"compute {gpu.major}.{gpu.minor}, {built_for}"
            fix = "it has no fast bfloat16, so models train in float32, which is slower"
            yield _expect(gpu.major >= 8, f"gpu {index}", detail, fix)
        yield gpu_programs()
    elif present:
        why = "is built without CUDA"
        fix = "install PyTorch's CUDA build of the same version (README, 'GPU')"
        if torch.version.cuda is not None:
            why = "cannot open the driver"
            fix = f"update the NVIDIA driver to one that serves CUDA {torch.version.cuda}"
        yield Finding("fail", "gpu", f"{present} on this machine, but {built_for} {why}", fix)
    else:
        yield Finding("ok", "gpu", f"none; sweeps run at scale laptop on the CPU ({built_for})")


def memory() -> Iterator[Finding]:
    """Main memory, shared memory and free space on the disk."""
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    total_gib, free_gib = (
        int(re.search(rf"^{name}:\s+(\d+) kB", meminfo, re.MULTILINE)[1]) * 1024 / _GIB  # type: ignore[index]
        for name in ("MemTotal", "MemAvailable")
    )
    detail = f"{free_gib:.1f} GiB free of {total_gib:.1f}"
    fix = f"close something, or run fewer trials side by side; {_MIN_MEMORY_GIB} GiB are safe"
    yield _expect(free_gib >= _MIN_MEMORY_GIB, "memory", detail, fix)

    shm_gib = shutil.disk_usage("/dev/shm").total / _GIB
    enough = shm_gib >= _MIN_SHM_GIB
    fix = "Ray keeps objects there; in a container: docker run --shm-size=4g"
    yield _expect(enough, "/dev/shm", f"{shm_gib:.{1 if enough else 2}f} GiB", fix)

    for folder in (Path.cwd(), Path(os.environ.get("RAY_TMPDIR", "/tmp"))):
        free_gib = shutil.disk_usage(folder).free / _GIB
        detail = f"{free_gib:.1f} GiB free at {folder}"
        yield _expect(free_gib >= _MIN_DISK_GIB, "disk", detail, "free some, or use --out")


def data() -> Iterator[Finding]:
    """Which data sets are at hand, and where images are cached; downloads nothing."""
    from vitbench.data import cache, data_folder
    from vitbench.data.sets import celeba, mnist

    yield Finding("ok", "digits, faces", "embedded")
    folder = data_folder(None)
    there, place = mnist.find(folder) is not None, folder / "MNIST" / "raw"
    fix = "the first sweep of it tries to download it; or put the four files there, or name "
    fix += "their folder with --data or $VITBENCH_DATA"
    yield _expect(there, "mnist", f"in {place}" if there else f"not in {place}", fix)
    if not there:
        yield _writable("data folder", folder, "$VITBENCH_DATA")
    there, place = celeba.find(folder) is not None, folder / "celeba"
    fix = "its home hands it out by browser: put img_align_celeba.zip and the three lists there; "
    fix += "until then sweeps with `offline: faces` use drawn faces"
    yield _expect(there, "celeba", f"in {place}" if there else f"not in {place}", fix)
    yield _writable("image cache", cache.folder(None), "$VITBENCH_CACHE")


def ray() -> Iterator[Finding]:
    """Does Ray start here and run a task? Takes about 10 s."""
    from vitbench.config import Resources
    from vitbench.tuning.cluster import connect as cluster
    from vitbench.tuning.cluster.capacity import capacity

    start_s = time.perf_counter()
    try:
        with cluster.connect(None, verbose=False):
            slots = capacity(Resources()).slots
            cluster.run_a_task(timeout_s=60)
            took = f"ran a task after {time.perf_counter() - start_s:.1f} s"
    except Exception as error:
        fix = "look into /tmp/ray/session_latest/logs; a proxy and a full /tmp are usual causes"
        yield Finding("fail", "ray", in_a_line(error), fix)
    else:
        yield Finding("ok", "ray", f"{took}, trains {slots} stacks side by side")


def listeners() -> Iterator[Finding]:
    """Ends what a killed sweep left listening; says what a sweep on this machine listens on."""
    from vitbench.tuning.cluster.watch import end_orphans

    if ended := end_orphans():
        yield Finding("ok", "ray", f"ended {len(ended)} agents of a Ray whose driver was killed")
    detail = "sweeps on this machine listen on 127.0.0.1 alone; on a cluster on every address"
    yield Finding("ok", "network", detail)


def results(folder: Path) -> Iterator[Finding]:
    """Whether the record of a run is whole; what is not is taken out, and kept beside."""
    from vitbench.records.salvage import salvage

    try:
        found = salvage(folder)
    except UserError as error:
        yield Finding("fail", "results", str(error), "use a copy, or train it again")
        return
    there = f"{found.whole:,} whole lines: {found.trials:,} trials, {found.epochs:,} epochs"
    if found.kept_as is None:
        yield Finding("ok", "results", f"{folder}: {there}; the tables were written anew")
        return
    lines = ", ".join(map(str, found.garbled[:20])) + (", ..." if len(found.garbled) > 20 else "")
    detail = f"{folder}: garbled lines of the ledger were taken out: {lines}; saved are {there}"
    fix = f"what those lines held is trained again by --resume; as it was: {found.kept_as.name}"
    yield Finding("warn", "results", detail, fix)


CHECKS = (python, packages, imports, cores, gpu, memory, data, listeners)


def examine(*, with_ray: bool = False, folder: Path | None = None) -> Iterator[Finding]:
    """Run every check, each in turn; one that cannot be carried out is itself a finding.

    With the folder of a run that one alone is looked at.
    """
    if folder is not None:
        yield from results(folder)
        return
    for check in (*CHECKS, *((ray,) if with_ray else ())):
        try:
            yield from check()
        except Exception as error:
            reason = f"could not look: {in_a_line(error)}"
            yield Finding("fail", check.__name__, reason, "mend what the message names")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 where nothing failed, else 1."""
    args = build_parser().parse_args(argv)
    if args.json:
        findings = list(examine(with_ray=args.ray, folder=args.results))
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
        return int(any(finding.state == "fail" for finding in findings))
    console = Console()
    states = []
    for finding in examine(with_ray=args.ray, folder=args.results):
        states.append(finding.state)
        line = Text(f"{finding.state:<5}", style=_STYLES[finding.state])
        line.append(f"{finding.subject:<20} {finding.detail}", style="default")
        console.print(line, soft_wrap=True, highlight=False)
        if finding.fix:
            console.print(
                f"     {'':<20} -> {finding.fix}", soft_wrap=True, highlight=False, markup=False
            )
    failed, warned = states.count("fail"), states.count("warn")
    console.print(f"{len(states)} checks: {failed} failed, {warned} with a warning")
    return 1 if failed else 0


def build_parser() -> argparse.ArgumentParser:
    """The command line of `vitbench doctor`."""
    parser = Parser(
        prog="vitbench doctor", description="Check the installation, the hardware and the data."
    )
    parser.add_argument(
        "results",
        nargs="?",
        type=Path,
        help="a results folder: name what is garbled in its record, and save the rest",
    )
    parser.add_argument("--ray", action="store_true", help="also start a local Ray (about 10 s)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser


def _cgroup_cpus(path: Path) -> float | None:
    """The CPU quota of this container in cores, or None where there is none."""
    try:
        quota, period = path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _writable(subject: str, folder: Path, variable: str) -> Finding:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    fine = os.access(existing, os.W_OK)
    state = "" if folder.exists() else " (will be made)"
    fix = f"name a folder that you may write to in {variable}"
    detail = f"{folder}{state}" if fine else f"{folder} cannot be written"
    return _expect(fine, subject, detail, fix)
