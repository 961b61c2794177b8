"""The console script: `vitbench sweep ...` is `python -m vitbench.sweep ...`, and so on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from vitbench import __version__
from vitbench.words import did_you_mean

EXIT_BAD_INPUT = 2


@dataclass(frozen=True)
class Command:
    """A subcommand: the module that exposes its `main(argv) -> int`, and what it is for."""

    module: str
    purpose: str


# A package's command line is its __main__, so that importing the package stays cheap.
COMMANDS = {
    "sweep": Command("vitbench.sweep", "run the sweep of a YAML file; tables and figures"),
    "analysis": Command("vitbench.analysis.__main__", "draw the report of a results folder again"),
    "compare": Command("vitbench.compare", "several results folders in one view"),
    "attention": Command("vitbench.attention.__main__", "where the trained models look, scored"),
    "export": Command("vitbench.export", "copy results to MLflow, Weights & Biases or Trackio"),
    "bench": Command("vitbench.bench.__main__", "measure this machine beside other libraries"),
    "doctor": Command("vitbench.doctor", "check the installation, the hardware and the data"),
}


def usage() -> str:
    """The text of `vitbench --help`."""
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {command.purpose}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: vitbench COMMAND ...",
            "",
            "commands (each also runs as `python -m vitbench.COMMAND`):",
            *lines,
            "",
            "`vitbench COMMAND --help` says more; `vitbench --version` names the version.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code.

    Only the module of the subcommand asked for is imported, so `vitbench --help` loads neither
    torch nor ray.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(usage(), file=sys.stderr)
        return EXIT_BAD_INPUT
    name, *rest = arguments
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"vitbench {__version__}")
        return 0
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        print(f"vitbench: there is no command '{name}'; {hint}", file=sys.stderr)
        return EXIT_BAD_INPUT
    code: int = importlib.import_module(COMMANDS[name].module).main(rest)
    return code
