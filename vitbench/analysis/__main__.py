"""`python -m vitbench.analysis RESULTS`: figures and report.html, or the findings as JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from vitbench.errors import UserError
from vitbench.net import net
from vitbench.options import Parser
from vitbench.records.folder import require_results


@net
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0, or 2 for bad input)."""
    args = build_parser().parse_args(argv)
    try:
        if args.results.suffix != ".csv":
            require_results(args.results)
        from vitbench.analysis import results

        if args.json:
            from vitbench.analysis import summary

            content = summary.as_json(results.load(args.results, args.target))
            print(json.dumps(content, indent=1, allow_nan=False))
        else:
            from vitbench.analysis import figures, style
            from vitbench.analysis.report import paper, report

            if args.results.suffix == ".csv":
                paths = style.save_pictures(figures.redraw(args.results), args.results)
            elif args.for_paper:
                paths = paper.write(results.load(args.results, args.target))
            elif args.latex:
                paths = report.write_latex(args.results, args.target)
            else:
                paths = report.draw_and_write(args.results, args.target)
            print(*paths, sep="\n")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line of `vitbench analysis`."""
    parser = Parser(
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
    parser.add_argument(
        "--json",
        action="store_true",
        help="print claims, findings and limits as one JSON object (docs/results.md); draw nothing",
    )
    parser.add_argument(
        "--latex",
        action="store_true",
        help="write every table of the report as LaTeX into RESULTS/latex; draw nothing",
    )
    parser.add_argument(
        "--for-paper",
        action="store_true",
        help="write the figures as wide as a paper's column, without titles, with captions and "
        "BibTeX, into RESULTS/paper",
    )
    return parser


def _accuracy(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < 1:
            return value
    raise argparse.ArgumentTypeError(f"{text} is not an accuracy between 0 and 1, like 0.9")


if __name__ == "__main__":
    sys.exit(main())
