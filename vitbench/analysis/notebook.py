"""What the notebooks in `analysis/` call: open results, show a figure, the verdict, tables."""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from vitbench.analysis import figures, results, style
from vitbench.analysis.labels import numbers as labels
from vitbench.analysis.report import verdict
from vitbench.analysis.results import Results
from vitbench.errors import UserError

# Optuna imports tqdm, which asks for widgets that nothing here shows.
warnings.filterwarnings("ignore", message="IProgress not found")

SHIPPED = "data"  # beside the notebooks: small results of this project's own sweeps


def open_results(name: str) -> Results:
    """The results folder in $RESULTS, else the one that ships with the notebooks.

    Args:
        name: of the shipped results, under `data/` in the notebook's folder.

    Raises:
        UserError: if there is no such folder.
    """
    chosen = os.environ.get("RESULTS")
    return results.load(Path(chosen) if chosen else Path(SHIPPED) / name)


@dataclass(frozen=True)
class Picture:
    """A figure that a notebook shows, whatever matplotlib's backend is."""

    figure: Figure

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        with matplotlib.rc_context(style.RC):
            self.figure.savefig(content, format="png")
        return content.getvalue()


class Text(str):
    """Sentences that a notebook shows as a list."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return str(self)


def figure(found: Results, name: str) -> Picture:
    """One figure of the report by its name, e.g. `lr_sensitivity`.

    Raises:
        UserError: if the results do not support it; names those that they do.
    """
    for spec, data in figures.supported(found):
        if spec.name == name:
            return Picture(spec.draw(data, spec.title(data, found.subtitle)))
    names = ", ".join(sorted(spec.name for spec, _ in figures.supported(found)))
    raise UserError(f"{found.folder}: supports no figure {name!r}; it has {names}")


def conclusions(found: Results) -> Text:
    """The verdict: what was found, and what these results cannot tell."""
    words = verdict.verdict(found, verdict.paired_table(found))
    lines = [f"- {text}" for text in words.findings]
    lines += ["", "**What this cannot tell you**", "", *(f"- {text}" for text in words.limits)]
    return Text("\n".join(lines))


def paired(found: Results) -> pd.DataFrame:
    """Every arm against the best one (or label against label), seed by seed."""
    return verdict.paired_table(found)


def label_table(found: Results) -> pd.DataFrame:
    """Labels from the easiest to the hardest, with all measures."""
    return pd.DataFrame(labels.table(found))
