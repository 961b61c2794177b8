"""What the notebooks in `analysis/` call: open results, show a figure, the conclusions, tables."""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from vitbench.analysis import figures, style, summary
from vitbench.analysis.findings import settings
from vitbench.analysis.findings.render import claim_sentence, sentence
from vitbench.analysis.labels import findings as label_findings
from vitbench.analysis.labels import numbers as labels
from vitbench.analysis.results import Results, load

# Optuna imports tqdm, which asks for widgets that nothing here shows.
warnings.filterwarnings("ignore", message="IProgress not results")


def open_results(name: str) -> Results:
    """The results folder in $RESULTS, else the one of this name that ships with the notebooks.

    Raises:
        UserError: if there is no such folder.
    """
    return load(Path(os.environ.get("RESULTS") or Path("data", name)))


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


def figure(results: Results, name: str) -> Picture:
    """One figure of the report by its name, e.g. `lr_sensitivity`.

    Raises:
        UserError: if the results do not support it; names those that they do.
    """
    return Picture(figures.by_name(results, name))


def conclusions(results: Results) -> Text:
    """Claims with their verdicts, findings, and what these results cannot tell."""
    made = summary.summarise(results)
    lines = [f"- **{verdict.claim.id}**: {claim_sentence(verdict)}" for verdict in made.claims]
    lines += [f"- {text}" for text in summary.sentences(results)]
    lines += ["", "**What this cannot tell you**", ""]
    return Text("\n".join([*lines, *(f"- {sentence(limit)}" for limit in made.limits)]))


def paired(results: Results) -> pd.DataFrame:
    """Every two settings (or labels, where models learned those), seed by seed, as findings are."""
    chosen = labels.chosen(results)
    if chosen.empty:
        pairs = settings.judged_pairs(results)
    else:
        pairs = label_findings.pairs_of(results).get(labels.headline(chosen), [])
    columns = ["higher", "lower", "seeds", "difference", "low", "high", "p", "p_adjusted"]
    rows = [
        (pair.a, pair.b, pair.difference.n, pair.difference.mean, *pair.difference.ends, pair.p,
         pair.p_adjusted)
        for pair in pairs
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def label_table(results: Results) -> pd.DataFrame:
    """Labels from the easiest to the hardest, with all measures."""
    return pd.DataFrame(labels.table(results))
