"""The console script: `vitbench sweep ...` is `python -m vitbench.sweep ...`, and so on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from vitbench import __version__
from vitbench.net import net
from vitbench.words import did_you_mean

EXIT_BAD_INPUT = 2


# Each module (or a package's __main__, so that importing the package stays cheap) exposes a
# `main(argv) -> int`; the words say what it is for.
COMMANDS = {
    "sweep": ("vitbench.sweep", "run the sweep of a YAML file; tables and figures"),
    "analysis": ("vitbench.analysis.__main__", "draw the report of a results folder again"),
    "new": ("vitbench.commands.new", "write a commented sweep file to start from"),
    "ls": ("vitbench.commands.ls", "list runs: state, best trial, folder"),
    "watch": ("vitbench.commands.watch", "a sweep in the browser, live while it runs"),
    "compare": ("vitbench.commands.compare", "several results folders in one view"),
    "attention": ("vitbench.attention.__main__", "where the trained models look, scored"),
    "export": ("vitbench.commands.export", "copy results to MLflow, Weights & Biases or Trackio"),
    "check": (
        "vitbench.commands.check",
        "try a model of your own: contract, cost, speed, stacking",
    ),
    "bench": ("vitbench.bench.__main__", "measure this machine beside other libraries"),
    "doctor": ("vitbench.commands.doctor", "check the installation, the hardware and the data"),
}
_LINES = "\n".join(f"  {name:<9}  {purpose}" for name, (_, purpose) in COMMANDS.items())
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
    code: int = importlib.import_module(COMMANDS[name][0]).main(rest)
    return code
