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
    parser.add_argument(
        "results",
        type=Path,
        metavar="RESULTS",
        help="a results folder; or the CSV of one of its figures, to redraw that one alone",
    )
    parser.add_argument(
        "--target",
        type=_accuracy,
        metavar="ACCURACY",
        help="validation accuracy to time the settings by; the sweep's target_accuracy if left out",
    )
    args = parser.parse_args(argv)
    from vitbench.analysis import figures, style
    from vitbench.analysis.report import report

    try:
        if args.results.suffix == ".csv":
            written = style.save_pictures(figures.redraw(args.results), args.results)
        else:
            written = report.draw_and_write(args.results, args.target)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for path in written:
        print(path)
    return 0


def _accuracy(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not an accuracy between 0 and 1, like 0.9")
    return value


if __name__ == "__main__":
    sys.exit(main())
