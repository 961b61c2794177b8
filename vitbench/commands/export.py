"""`vitbench export RESULTS --to TOOL`: a run per model for an experiment tracker."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vitbench.errors import UserError, in_a_line
from vitbench.options import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0, 1 if the tool fails, 2 for bad input)."""
    from vitbench.exports import tools

    args = build_parser().parse_args(argv)
    try:
        tools.require([args.to])
        print(tools.export(args.to, args.results))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except Exception as error:  # the tool's: a server that is away, a store of another version
        print(f"export to {args.to} failed: {in_a_line(error)}", file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line of `vitbench export`."""
    from vitbench.exports import tools

    parser = Parser(
        prog="vitbench export",
        description="Write a run per trained model of a results folder for an experiment tracker; "
        "runs that were written before are replaced.",
        epilog="Exit codes: 0 written; 1 the tool failed; 2 bad input, nothing written.",
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="a results folder")
    parser.add_argument("--to", required=True, choices=tools.FROM_TABLES, help="which tool")
    return parser
