"""`vitbench check mymodels:net`: a model of your own tried before it is swept."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitbench import user_code
from vitbench.config import Dataset, Model, Train, TrialConfig
from vitbench.config.yaml_file import parse_value
from vitbench.errors import UserError
from vitbench.options import Parser
from vitbench.user_code import Code

EXIT_OK, EXIT_BAD_INPUT = 0, 2
_MEMBERS = 8
_ROUNDING = 1e-9  # as share of the largest value, in float64


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        return _run(args)
    except UserError as error:
        print(f"{args.build}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT


def build_parser() -> argparse.ArgumentParser:
    """The command line of `vitbench check`."""
    parser = Parser(
        prog="vitbench check",
        description="Try a model of your own on this machine: whether its builder keeps the "
        "contract build(*, channels, image_size, outputs, **args), what it costs, how fast it "
        "trains alone and stacked, and whether a stack computes what the model alone does.",
        epilog="Exit codes: 0 it can be swept; 2 it cannot, and why.",
    )
    add = parser.add_argument
    add("build", metavar="BUILD", help="mymodels:net, looked for here first, or timm:NAME")
    text = "an argument of the builder, e.g. --args width=64 deep=true"
    add("--args", nargs="+", default=[], metavar="NAME=VALUE", help=text)
    add("--data", default="digits", metavar="NAME", help="data set (default: digits)")
    add("--data-dir", type=Path, metavar="DIR", help="its folder (default: $VITBENCH_DATA)")
    add("--image-size", type=int, default=32, metavar="PX", help="pixels per side (default: 32)")
    add("--batch-size", type=int, default=16, metavar="N", help="images per update (default: 16)")
    return parser


def _run(args: argparse.Namespace) -> int:
    model = Model(build=args.build, args=_arguments(args.args))
    dataset = _dataset(args.data, args.image_size)
    _use(args.build)
    import torch

    from vitbench import data
    from vitbench.commands.own_models import shape_of
    from vitbench.model.inspection import (
        difference_to_solo,
        inspect_built,
        training_bytes,
        unknown_arguments,
    )
    from vitbench.plan import StackPlan
    from vitbench.training.stack_size import training_speed

    for name, known in unknown_arguments(args.build, set(model.args)).items():
        raise UserError(f"takes no argument {name}; it takes {known}")
    images = data.load(data.resolve(dataset, args.data_dir).dataset, args.data_dir)
    shape = shape_of(model, images)
    found = inspect_built(shape)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)

    def speed(members: int) -> float:
        trials = (
            TrialConfig(
                dataset=dataset, model=model, train=Train(seed=seed, batch_size=args.batch_size)
            )
            for seed in range(members)
        )
        return training_speed(StackPlan(tuple(trials)), images, device)

    difference = difference_to_solo(shape)
    equal = difference <= _ROUNDING
    alone, stacked = speed(1), speed(_MEMBERS)
    memory = training_bytes(shape, args.batch_size)
    for name, value in (
        ("images", f"{images.name}, {images.channels} x {images.image_size} x {images.image_size}"),
        ("parameters", f"{found.cost.parameters:,}"),
        ("FLOPs", f"{found.cost.forward_flops:,} of an image, forward"),
        ("memory", f"{memory / 2**20:,.1f} MiB in training at batch size {args.batch_size}"),
        ("images/s", f"{alone:,.0f} alone, {stacked:,.0f} in a stack of {_MEMBERS}, on {device}"),
        ("stackable", (found.why_alone and f"no, trains one by one: {found.why_alone}") or "yes"),
        ("stack is solo", f"{'yes' if equal else 'NO'}, to {difference:.1e} (float64)"),
    ):
        print(f"{name:<14} {value}")
    if not equal:
        raise UserError("computes something else in a stack than alone; it cannot be trusted there")
    return EXIT_OK


def _arguments(words: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"--args {word}: is not NAME=VALUE; write e.g. --args width=64")
        found[name] = parse_value(value)
    return found


def _dataset(name: str, image_size: int) -> Dataset:
    from pydantic import ValidationError

    from vitbench.config.problems import translate

    try:
        return Dataset.model_validate({"name": name, "image_size": image_size})
    except ValidationError as error:
        problem = translate(error.errors()[0], Dataset)
        option = "--data" if problem.path == ("name",) else "--image-size"
        raise UserError(f"{option} {problem.value}: {problem.rule}; {problem.fix}") from None


def _use(build: str) -> None:
    """Let a builder from a file of this folder be imported."""
    if build.partition(":")[0] not in user_code.LIBRARIES:
        files, travels = user_code.trace(build, Path.cwd())
        Code(files if travels else {}, str(Path.cwd())).use()


if __name__ == "__main__":
    sys.exit(main())
