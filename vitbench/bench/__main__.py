"""`python -m vitbench.bench`: measure this machine; one JSON, one table, one figure each."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from vitbench import hardware
from vitbench.bench import report
from vitbench.errors import UserError
from vitbench.records.environment import environment

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130

# The paper gives no batch size; 16 is where its claim about learning rates holds (README), and 128
# is what a GPU is commonly given.
_BATCH_SIZES = {"cpu": [16], "cuda": [16, 128]}
# Images of one turn, so that a turn takes seconds: a core trains about 100 of them a second.
_IMAGES = {("cpu", False): 512, ("cpu", True): 64, ("cuda", False): 49_920, ("cuda", True): 9_984}
_INPUT_IMAGES = {False: 4096, True: 512}
_TRIALS = {False: (32, 4), True: (8, 2)}
_MEMBERS = {False: [1, 3, 8, 16], True: [1, 3]}


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m vitbench.bench`."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quick", action="store_true", help="less work per round, fewer sides")
    common.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: a GPU if any"
    )
    common.add_argument(
        "--rounds", type=int, default=5, help="counted rounds, 5 at least for a range (default 5)"
    )
    common.add_argument(
        "--out", type=Path, help="folder for the files (default: benchmarks/<this hardware>)"
    )
    common.add_argument(
        "--batch-size", type=_numbers, metavar="N,...", help="default: 16; on a GPU 16,128"
    )
    common.add_argument(
        "--images", type=int, metavar="N", help="images of one turn (default: seconds' worth)"
    )
    common.add_argument("--members", type=_numbers, metavar="K,...", help="stack sizes of `train`")
    common.add_argument(
        "--threads", type=int, default=1, help="CPU threads of each side (default 1, as in sweeps)"
    )
    common.add_argument(
        "--only", action="append", default=[], metavar="WORD", help="sides whose name has this word"
    )
    parser = argparse.ArgumentParser(
        prog="vitbench bench",
        description="Measure this machine: sides take turns within one run (A B A B), warm-up is "
        "not counted, and the median and range of the rounds are reported.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in {
        "train": "images/s of training: this engine beside timm, torchvision, vit-pytorch",
        "input": "images/s of the input path, beside a torchvision DataLoader",
        "scaling": "stack size, threads and processes",
        "overhead": "time per trial that Ray adds, beside plain Ray Tune and Ray Train",
        "profile": "where the time of a training step goes",
        "all": "all of them",
    }.items():
        command = commands.add_parser(name, parents=[common], help=purpose, description=purpose)
        command.set_defaults(workers=None, precision="auto")
        if name == "scaling":
            command.add_argument(
                "--workers",
                type=int,
                nargs="+",
                metavar="N",
                help="instead: one model on so many processes each (DDP under Ray Train), on CPUs",
            )
        if name == "profile":
            command.add_argument(
                "--precision",
                choices=["auto", "float32", "bfloat16"],
                help="of the step (default auto: bfloat16 on a GPU)",
            )
    results = commands.add_parser("report", help="write RESULTS.md out of result folders")
    results.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    results.add_argument("--to", type=Path, required=True, metavar="RESULTS.md")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    console = Console(stderr=True)
    try:
        if args.command == "report":
            report.write_results(args.folders, args.to)
            console.print(f"wrote {args.to}", highlight=False)
            return 0
        return _measure(args, console)
    except UserError as error:
        console.print(str(error), style="red", soft_wrap=True, markup=False)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        console.print("interrupted", style="red")
        return EXIT_INTERRUPTED


def _measure(args: argparse.Namespace, console: Console) -> int:
    _check(args)
    device = _device(args.device)
    machine = hardware_name(device)
    out = args.out or Path("benchmarks") / _slug(machine)
    start_s = time.perf_counter()
    console.print(f"{machine}; results go to {out}", highlight=False)

    def show(message: str) -> None:
        console.print(
            f"{time.perf_counter() - start_s:6.0f} s  {message}", highlight=False, soft_wrap=True
        )

    failed = False
    for name in list(_MEASURES) if args.command == "all" else [args.command]:
        for result in _MEASURES[name](args, device, machine, show):
            paths = report.write(result, out)
            print(report.markdown(result.to_json()))
            show(f"wrote {', '.join(str(path) for path in paths)}")
            failed |= any(row.error for row in result.rows)
    return 1 if failed else 0


def _check(args: argparse.Namespace) -> None:
    for name in ("rounds", "threads", "images"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: must be 1 or more; use --{name} 5 for instance.")
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
            "--device cuda: torch sees no GPU here; `python -m vitbench.doctor` says why, and "
            "--device cpu measures the CPU."
        )
    return "cuda" if available and wanted != "cpu" else "cpu"


def hardware_name(device: str) -> str:
    """What is measured, in words: the GPU, or the processor and its usable cores."""
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    facts = environment()
    return f"{facts['cpu']}, {facts['cpus']} core{'s' if facts['cpus'] > 1 else ''}"


def stamp(device: str) -> dict[str, Any]:
    """The environment of a run, with the versions of the libraries compared."""
    facts = environment()
    for name in ("timm", "vit-pytorch"):
        try:
            facts["packages"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts["packages"][name] = None
    if device == "cuda":
        import torch

        facts["cuda"] = torch.version.cuda
    return facts


def _slug(text: str) -> str:
    plain = re.sub(r"\((r|tm|c)\)", "", text.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _numbers(text: str) -> list[int]:
    values = [int(part) for part in text.split(",")]
    if any(value < 1 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: each must be 1 or more")
    return values


Show = Callable[[str], None]


def _common(args: argparse.Namespace, device: str, show: Show) -> dict[str, Any]:
    return {
        "rounds": args.rounds,
        "warmup": 1,
        "on_progress": show,
        "environment": stamp(device),
    }


def _train(args: argparse.Namespace, device: str, machine: str, show: Show) -> list[report.Report]:
    from vitbench.bench import train

    reports = []
    for batch_size in args.batch_size or _BATCH_SIZES[device]:
        images = train.whole_batches(args.images or _IMAGES[device, args.quick], batch_size)
        workers = 4 if device == "cuda" else 0
        everyone = train.contenders(
            device=device,
            batch_size=batch_size,
            images=images,
            threads=args.threads,
            members=args.members or _MEMBERS[args.quick],
            workers=workers,
            bfloat16=device == "cuda" or hardware.has_amx(),
            compiled=not args.quick,
        )
        reports.append(
            train.measure(
                train.choose(everyone, args.only),
                batch_size=batch_size,
                hardware=machine,
                settings={
                    "batch": batch_size,
                    "images per turn": images,
                    "rounds": args.rounds,
                    "threads": args.threads,
                    "DataLoader workers": workers,
                    "optimizer": "RAdam",
                },
                **_common(args, device, show),
            )
        )
    return reports


def _input(args: argparse.Namespace, device: str, machine: str, show: Show) -> list[report.Report]:
    from vitbench.bench import inputs, train

    (batch_size, *_) = args.batch_size or [128]
    images = args.images or _INPUT_IMAGES[args.quick]
    workers = max(2, hardware.cpu_count())
    everyone = inputs.contenders(
        device=device,
        batch_size=batch_size,
        images=images,
        threads=args.threads,
        workers=workers,
    )
    result = inputs.measure(
        train.choose(everyone, args.only),
        hardware=machine,
        settings={"batch": batch_size, "images per turn": images, "rounds": args.rounds},
        **_common(args, device, show),
    )
    return [result]


def _scaling(
    args: argparse.Namespace, device: str, machine: str, show: Show
) -> list[report.Report]:
    from vitbench.bench import scaling, train

    reports = []
    for batch_size in args.batch_size or _BATCH_SIZES[device]:
        images = train.whole_batches(args.images or _IMAGES[device, args.quick], batch_size)
        if args.workers:
            # scikit-learn has 1,197 digits to train on; two epochs make a turn.
            size, count = scaling.SIZES[0], min(images, 1024)
            everyone = scaling.worker_contenders(
                size, batch_size=batch_size, images=count, workers=args.workers
            )
            result = scaling.measure(
                size,
                train.choose(everyone, args.only),
                batch_size=batch_size,
                hardware=machine,
                settings={
                    "global batch": batch_size,
                    "images per turn": 2 * count,
                    "rounds": args.rounds,
                    "optimizer": "RAdam",
                },
                kind="workers-",
                title="One model on several processes (DDP)",
                **_common(args, device, show),
            )
            reports.append(result)
            continue
        for size in scaling.SIZES:
            everyone = scaling.contenders(
                size,
                device=device,
                batch_size=batch_size,
                images=images,
                cores=hardware.cpu_count(),
            )
            result = scaling.measure(
                size,
                train.choose(everyone, args.only),
                batch_size=batch_size,
                hardware=machine,
                settings={
                    "batch": batch_size,
                    "images per turn": images * size.work,
                    "rounds": args.rounds,
                    "optimizer": "RAdam",
                },
                **_common(args, device, show),
            )
            reports.append(result)
    return reports


def _overhead(
    args: argparse.Namespace, device: str, machine: str, show: Show
) -> list[report.Report]:
    device, machine = "cpu", hardware_name("cpu")  # Ray itself runs on the processor
    from vitbench.bench import overhead, train

    slots = hardware.cpu_count()
    trials, train_trials = _TRIALS[args.quick]
    everyone = overhead.contenders(trials=trials, train_trials=train_trials, slots=slots)
    result = overhead.measure(
        train.choose(everyone, args.only),
        slots=slots,
        hardware=machine,
        settings={
            "trials per turn": trials,
            "of Ray Train": train_trials,
            "slots": slots,
            "rounds": args.rounds,
        },
        # Each turn starts its own worker processes, as a sweep does: there is nothing to warm up.
        **{**_common(args, device, show), "warmup": 0},
    )
    return [result]


def _profile(
    args: argparse.Namespace, device: str, machine: str, show: Show
) -> list[report.Report]:
    from vitbench.bench import profile

    common = _common(args, device, show)
    del common["warmup"]
    return [
        profile.measure(
            device=device,
            members=members,
            batch_size=batch_size,
            steps=4 if args.quick else 32,
            threads=args.threads,
            precision=args.precision,
            hardware=machine,
            **common,
        )
        for batch_size in args.batch_size or _BATCH_SIZES[device]
        for members in args.members or [1]
    ]


_MEASURES = {
    "train": _train,
    "input": _input,
    "scaling": _scaling,
    "overhead": _overhead,
    "profile": _profile,
}

if __name__ == "__main__":
    sys.exit(main())
