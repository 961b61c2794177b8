"""`vitbench compare A B...`: several results folders in one view."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.errors import UserError
from vitbench.options import Parser
from vitbench.records.folder import require_results
from vitbench.words import printable

if TYPE_CHECKING:
    from rich.console import Console

    from vitbench.analysis.compare.numbers import Comparison

_NAME = "compare.html"
_MAX_ROWS = 12


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0, or 2 for bad input)."""
    args = build_parser().parse_args(argv)
    try:
        require_results(*args.folders)
        from vitbench.analysis.compare import numbers as comparison

        made = comparison.compare(args.folders)
        if args.json:
            from vitbench.analysis.compare.findings import as_json

            print(json.dumps(as_json(made), indent=1, allow_nan=False))
            return 0
        from vitbench.analysis.compare import page as comparison_page

        out = args.out / _NAME if args.out.is_dir() else args.out
        path = comparison_page.write(made, out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    from rich.console import Console

    _print(made, Console())
    print(f"page: {path}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line of `vitbench compare`."""
    parser = Parser(
        prog="vitbench compare",
        description="Compare results folders with the first one: what differs in settings, code "
        "and data, outcomes, differences paired by seed, learning curves.",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="RESULTS", help="results folders")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(_NAME),
        metavar="FILE",
        help=f"the page (default: {_NAME}); figures and tables go into <name>_files beside it",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print findings and limits as one JSON object (docs/results.md); write no page",
    )
    return parser


def _cells(pair: Mapping[Hashable, Any]) -> list[str]:
    """A paired difference with its interval, adjusted p and claim."""
    from vitbench.analysis.compare.page import claim_text
    from vitbench.analysis.page import number

    low, high = number(pair["low"]), number(pair["high"])
    interval = low if low == "–" else f"{low} to {high}"
    adjusted = number(pair["p_adjusted"], 3)
    return [number(pair["difference"]), interval, adjusted, claim_text(pair)]


def _print(made: Comparison, console: Console) -> None:
    """The findings, and a short table of outcomes and differences."""
    from rich.table import Table
    from rich.text import Text

    from vitbench.analysis.compare.findings import limits
    from vitbench.analysis.compare.numbers import METRICS
    from vitbench.analysis.compare.page import outcome_rows, outcome_text, shown
    from vitbench.analysis.findings.render import sentence

    if not console.is_terminal:
        console.width = max(console.width, 160)  # a pipe has no width
    first, *others = made.sides
    for side in made.sides:
        line = f"{side.letter}  {side.results.folder}  ({side.results.subtitle})"
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    name = made.metric if made.metric in made.outcomes else "test_accuracy"
    table = Table("setting", box=None, pad_edge=False)
    for side in made.sides:
        table.add_column(f"{side.letter} {METRICS[name]}", justify="right", no_wrap=True)
    for side in others:
        for head in (f"{side.letter} - {first.letter}", "95 % interval", "adjusted p"):
            table.add_column(head, justify="right", no_wrap=True)
        table.add_column("claim", no_wrap=True)
    rows = outcome_rows(made)
    pairs = {(r["setting"], r["folder"]): r for r in made.paired.to_dict("records")}
    for row in rows[:_MAX_ROWS]:
        cells = [outcome_text(row["by"].get(side.letter), name) for side in made.sides]
        for side in others:
            pair = pairs.get((row["setting"], side.letter))
            cells += _cells(pair) if pair else [""] * 4
        table.add_row(*map(Text, (printable(row["setting"]), *cells)))
    if len(rows) > _MAX_ROWS:
        table.caption = f"{len(rows) - _MAX_ROWS} more settings are on the page"
    console.print(table)
    for text in [*shown(made), *map(sentence, limits(made))]:
        console.print(f"- {text}", soft_wrap=True, highlight=False, markup=False)
