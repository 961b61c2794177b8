"""`python -m vitbench.analysis RESULTS`: figures and report.html from the tables alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vitbench.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0, or 2 for bad input)."""
    parser = argparse.ArgumentParser(
        prog="vitbench analysis",
        description="Redraw the figures of a results folder and write its report.html.",
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="a results folder")
    args = parser.parse_args(argv)
    from vitbench.analysis import report

    try:
        written = report.draw_and_write(args.results)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
