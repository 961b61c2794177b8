"""`python -m vitbench.bench`: measure this machine; one JSON, one table, one figure each."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from vitbench import hardware
from vitbench.bench import report
from vitbench.bench.session import Session
from vitbench.errors import UserError
from vitbench.options import Parser
from vitbench.records.environment import environment

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130

# Purpose, and `module:function`, which yields reports of a session; imported when it is its turn.
_BENCHMARKS = {
    "train": (
        "images/s of training: this engine beside timm, torchvision, vit-pytorch",
        "comparisons:train",
    ),
    "input": (
        "images/s of the input path, beside a torchvision DataLoader",
        "comparisons:input_path",
    ),
    "scaling": ("stack size, threads and processes", "comparisons:scaling"),
    "overhead": (
        "time per trial that Ray adds, beside plain Ray Tune and Ray Train",
        "comparisons:overhead",
    ),
    "sweep": (
        "a whole sweep, from command to results, beside a script with timm and plain Ray Tune",
        "comparisons:sweep",
    ),
    "profile": ("where the time of a training step goes", "profile:measure"),
    "figure5": (
        "the paper's Figure 5 as one run on one device: the record of benchmarks/RECORD.md",
        "figure5:measure",
    ),
}
_NOT_IN_ALL = "figure5"  # minutes on a GPU, days on a CPU


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m vitbench.bench`."""
    common = Parser(add_help=False)
    add = common.add_argument
    add("--quick", action="store_true", help="less work per round, fewer sides")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: a GPU if any")
    add("--rounds", type=int, default=5, help="counted rounds, 5 at least for a range (default 5)")
    add("--out", type=Path, help="folder for the files (default: benchmarks/<this hardware>)")
    add("--batch-size", type=_numbers, metavar="N,...", help="default: 16; on a GPU 16,128")
    add("--images", type=int, metavar="N", help="images of one turn (default: seconds' worth)")
    add("--members", type=_numbers, metavar="K,...", help="stack sizes of `train`")
    add("--threads", type=int, default=1, help="CPU threads of each side (default 1, as in sweeps)")
    add("--only", action="append", metavar="WORD", help="sides whose name has this word")
    common.set_defaults(only=[], workers=None, trials=None, precision="auto")
    common.set_defaults(fraction=None, compile=False, peak_tflops=None)
    parser = Parser(
        prog="vitbench bench",
        description="Measure this machine: sides take turns within one run (A B A B), warm-up is "
        "not counted, and the median and range of the rounds are reported.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    purposes = {
        **{name: purpose for name, (purpose, _) in _BENCHMARKS.items()},
        "all": f"all of them but {_NOT_IN_ALL}",
    }
    command = {
        name: commands.add_parser(name, parents=[common], help=purpose, description=purpose)
        for name, purpose in purposes.items()
    }
    command["scaling"].add_argument(
        "--workers",
        type=int,
        nargs="+",
        metavar="N",
        help="instead: one model on so many processes each (DDP under Ray Train), on CPUs",
    )
    for name in ("profile", "figure5"):
        command[name].add_argument(
            "--precision",
            choices=["auto", "float32", "bfloat16"],
            help="of matrix products (default auto: bfloat16 on a GPU)",
        )
    add = command["figure5"].add_argument
    add("--fraction", type=float, metavar="F", help="of its 200 epochs (default: 1; CPUs 0.0002)")
    add("--compile", action="store_true", help="with torch.compile, from the first step")
    add("--peak-tflops", type=float, metavar="T", help="of the card in bfloat16, if not known here")
    command["sweep"].add_argument(
        "--trials",
        type=_numbers,
        metavar="N,...",
        help="of each sweep; the paper's model up to 8, small ones beyond (default 3,32)",
    )
    results = commands.add_parser("report", help="write RESULTS.md out of result folders")
    results.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    results.add_argument("--to", type=Path, required=True, metavar="RESULTS.md")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        if args.command == "report":
            report.write_results(args.folders, args.to)
            console.print(f"wrote {args.to}")
            return 0
        return _measure(args, console)
    except UserError as error:
        console.print(str(error), style="red", markup=False)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        console.print("interrupted", style="red")
        return EXIT_INTERRUPTED


def _measure(args: argparse.Namespace, console: Console) -> int:
    _check(args)
    device = _device(args.device)
    hardware_name, _ = _machine(device)
    out = args.out or default_folder(device)
    start_s = time.perf_counter()
    console.print(f"{hardware_name}; results go to {out}")

    def show(message: str) -> None:
        console.print(f"{time.perf_counter() - start_s:6.0f} s  {message}")

    settings: dict[str, Any] = {f.name: getattr(args, f.name, None) for f in fields(Session)}
    settings["on_progress"] = show
    failed = False
    everything = [name for name in _BENCHMARKS if name != _NOT_IN_ALL]
    for name in everything if args.command == "all" else [args.command]:
        # Ray itself runs on the processor; whole sweeps are compared where scripts run, too.
        on = "cpu" if name in ("overhead", "sweep") else device
        hardware_name, facts = _machine(on)
        settings |= {"device": on, "hardware": hardware_name, "environment": facts}
        module, function = _BENCHMARKS[name][1].split(":")
        measure = getattr(importlib.import_module(f"vitbench.bench.{module}"), function)
        for record in measure(Session(**settings)):
            paths = report.write(record, out)
            print(report.markdown(record))
            show(f"wrote {', '.join(str(path) for path in paths)}")
            failed |= any(row["error"] for row in record["rows"])
    return 1 if failed else 0


def _check(args: argparse.Namespace) -> None:
    for name in ("rounds", "threads", "images"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: must be 1 or more; use --{name} 5 for instance.")
    if args.fraction is not None and not 0 < args.fraction <= 1:
        raise UserError(
            f"--fraction {args.fraction:g}: must be above 0 and at most 1, which is all."
        )
    if args.peak_tflops is not None and not args.peak_tflops > 0:
        raise UserError(f"--peak-tflops {args.peak_tflops:g}: must be above 0; 989 for instance.")
    cores = hardware.cpu_count()
    for count in args.workers or ():
        if not 1 <= count <= cores:
            raise UserError(
                f"--workers {count}: each needs a core, and this machine has {cores}; use 1 to "
                f"{cores}."
            )


def _device(wanted: str) -> str:
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise UserError(
            "--device cuda: torch sees no GPU here; `vitbench doctor` says why, and "
            "--device cpu measures the CPU."
        )
    return "cuda" if available and wanted != "cpu" else "cpu"


def _machine(device: str) -> tuple[str, dict[str, Any]]:
    """What is measured, in words, and its environment with the versions of the libraries."""
    facts = environment()
    for name in ("timm", "vit-pytorch"):
        installed = list(metadata.distributions(name=name))
        facts["packages"][name] = installed[0].version if installed else None
    if device == "cuda":
        import torch

        facts["cuda"] = torch.version.cuda
        return str(torch.cuda.get_device_name()), facts
    return f"{facts['cpu']}, {facts['cpus']} core{'s' if facts['cpus'] > 1 else ''}", facts


def default_folder(device: str) -> Path:
    """Where results of this machine's `cpu` or `cuda` go: benchmarks/<its name>."""
    plain = re.sub(r"\((r|tm|c)\)", "", _machine(device)[0].lower())
    return Path("benchmarks") / re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _numbers(text: str) -> list[int]:
    values = [int(part) for part in text.split(",")]
    if any(value < 1 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: each must be 1 or more")
    return values


if __name__ == "__main__":
    sys.exit(main())
