"""The console script: `vitbench sweep ...` is `python -m vitbench.sweep ...`, and so on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from vitbench import __version__
from vitbench.commands import COMMANDS
from vitbench.net import end_at_once, handled_by, net, run_as_process
from vitbench.words import did_you_mean

EXIT_BAD_INPUT = 2

_LINES = "\n".join(f"  {name:<10}  {purpose}" for name, (_, purpose) in COMMANDS.items())
USAGE = f"""usage: vitbench COMMAND ...      (or: python -m vitbench COMMAND ...)

commands:
{_LINES}

`vitbench COMMAND --help` says more; `vitbench --version` names the version."""


@net
def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code.

    Only the module of the subcommand asked for is imported, so `vitbench --help` loads neither
    torch nor ray.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(USAGE, file=sys.stderr)
        return EXIT_BAD_INPUT
    name, *rest = arguments
    if name in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if name == "--version":
        print(f"vitbench {__version__}")
        return 0
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        print(f"vitbench: there is no command '{name}'; {hint}", file=sys.stderr)
        return EXIT_BAD_INPUT
    with handled_by(end_at_once):
        command = importlib.import_module(COMMANDS[name][0])
    code: int = command.main(rest)
    return code


def as_program() -> NoReturn:
    """The console script."""
    run_as_process(main)
