"""The tools that results can be written to, and the call that writes the tables to one of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from vitbench.analysis.results import load
from vitbench.errors import UserError, in_a_line
from vitbench.exports.runs import runs_of
from vitbench.exports.trackers import to_mlflow, to_trackio, to_wandb

# TensorBoard is written while models train, the others from the tables.
FROM_TABLES = {"mlflow": to_mlflow, "wandb": to_wandb, "trackio": to_trackio}
PACKAGES = {"tensorboard": "tensorboardX", **{name: name for name in FROM_TABLES}}


def require(names: Sequence[str]) -> None:
    """Check that the package of each tool is installed, without importing it.

    Raises:
        UserError: if one is not.
    """
    for name in names:
        spec = importlib.util.find_spec(PACKAGES[name])
        if spec is None or spec.origin is None:  # a folder of that name is no package
            raise UserError(
                f"exports: {name} needs the package {PACKAGES[name]}, which is not installed; "
                f"pip install 'vitbench[{name}]', or leave it out"
            )


def export(name: str, results_dir: Path) -> str:
    """Write all models of a results folder to a tool of FROM_TABLES, in place of earlier exports.

    Returns:
        A line for the user: how many runs, how many replaced, where they are.

    Raises:
        UserError: if the folder holds no results.
        Exception: whatever the tool raises.
    """
    runs = runs_of(load(results_dir))
    where, replaced = FROM_TABLES[name](results_dir.resolve(), runs)
    again = f", {replaced} of them written before and replaced" if replaced else ""
    return f"exported to {name}: {len(runs)} runs{again}: {where}"


def export_each(names: Sequence[str], results_dir: Path) -> list[str]:
    """Write a results folder to each of these tools but TensorBoard; a line for each.

    A failure is a line as well.
    """
    lines = []
    for name in dict.fromkeys(names):
        if name in FROM_TABLES:
            try:
                lines.append(export(name, results_dir))
            except Exception as error:  # whatever it is, the results are complete without
                lines.append(
                    f"export to {name} failed ({in_a_line(error)}); the results are complete "
                    f"without; to try again: vitbench export {results_dir} --to {name}"
                )
    return lines
