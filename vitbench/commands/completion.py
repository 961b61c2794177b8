"""`vitbench completion SHELL`: a script by which a shell completes vitbench's words."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitbench.commands import COMMANDS
from vitbench.options import Parser

_SHELLS = ("bash", "zsh", "tcsh")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the script; returns the exit code."""
    args = build_parser().parse_args(argv)
    import shtab

    print(shtab.complete(whole_parser(), shell=args.shell))  # nosec B604
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line of `vitbench completion`."""
    parser = Parser(
        prog="vitbench completion",
        description="Print a script that lets a shell complete commands, options and files, e.g. "
        "vitbench completion bash > ~/.local/share/bash-completion/completions/vitbench, or "
        "vitbench completion zsh > _vitbench in a folder of $fpath.",
    )
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS))
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """All commands as one parser, whose files and folders a shell may complete."""
    parser = Parser(prog="vitbench")
    commands = parser.add_subparsers()
    for name, (module, purpose) in COMMANDS.items():
        own = importlib.import_module(module).build_parser()
        commands.add_parser(name, parents=[own], add_help=False, help=purpose)
        _name_files(own)
    return parser


def _name_files(parser: argparse.ArgumentParser) -> None:
    """Mark every argument that is a path as one, by the attribute that shtab reads."""
    import shtab

    for action in parser._actions:
        if action.type is Path:
            as_file: Any = action
            as_file.complete = shtab.FILE


if __name__ == "__main__":
    sys.exit(main())
