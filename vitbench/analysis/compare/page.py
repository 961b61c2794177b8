"""compare.html: several results folders on one page, its figures and tables beside it."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from vitbench.analysis import figure_spec, page
from vitbench.analysis.compare.figures import FIGURES
from vitbench.analysis.compare.findings import ONE_SETTING, findings, limits, other_images
from vitbench.analysis.compare.numbers import BEST, METRICS, Comparison
from vitbench.analysis.findings.render import sentence
from vitbench.analysis.page import Embedder, number
from vitbench.errors import UserError
from vitbench.records.files import write_atomically

MAX_SETTINGS = 100
_LONG_HEX = r"\b([0-9a-f]{12})[0-9a-f]{8,}\b"  # of which a reader compares the beginning
_MARK = b'<meta name="generator" content="vitbench compare">'
CLAIMS = {"less": "lower", "greater": "higher", "none": "none"}


def write(comparison: Comparison, path: Path) -> Path:
    """Write the page to `path`, and figures and tables into `<stem>_files` beside it.

    Raises:
        UserError: if the folder cannot be written to, or something else than such a page stands
            there.
    """
    _require_own(path)
    files = path.with_name(f"{path.stem}_files")
    # Partial sweeps are labelled on every figure.
    names = ", ".join(
        f"{side.letter}: {'PARTIAL ' if side.results.partial else ''}{side.name}"
        for side in comparison.sides
    )
    rows = outcome_rows(comparison)
    differences = comparison.differences.replace(_LONG_HEX, r"\1…", regex=True)
    differences = differences.map(lambda text: textwrap.shorten(text, 160, placeholder=" …"))
    content = {
        "title": f"Comparison of {' and '.join(side.name for side in comparison.sides)}",
        "sides": comparison.sides,
        "findings": shown(comparison),
        "limits": [sentence(limit) for limit in limits(comparison)],
        "differences": differences.to_dict("records"),
        "outcomes": rows[:MAX_SETTINGS],
        "left_out": max(0, len(rows) - MAX_SETTINGS),
        "paired": comparison.paired.head(MAX_SETTINGS).to_dict("records"),
        "metric": METRICS[comparison.metric],
        "files": files.name,
        "text": outcome_text,
        "claim": claim_text,
        "warnings": [sentence(one) for one in other_images(comparison)],
    }
    try:
        files.mkdir(parents=True, exist_ok=True)
        drawn = figure_spec.draw(FIGURES, comparison, names, files)
        for name in ("outcomes", "paired", "differences"):
            getattr(comparison, name).to_csv(files / f"{name}.csv", index=False)
        content["figures"] = Embedder().by_section(FIGURES, drawn)
        write_atomically(path, page.render("compare.html", content))
    except OSError as error:
        raise UserError(
            f"--out {path}: cannot be written ({error.strerror}); name a file in a folder that "
            f"you may write to"
        ) from error
    return path


def _require_own(path: Path) -> None:
    """Refuse to replace what `write` has not written: other pages, data, devices."""
    try:
        files = path.with_name(f"{path.stem}_files")
        if not os.path.lexists(path):
            if not os.path.lexists(files):
                return
            raise UserError(f"--out {path}: {files} is there already; name another file")
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if _MARK in file.read(2000):
                    return
    except OSError as error:
        raise UserError(f"--out {path}: {error.strerror}; name another file") from error
    raise UserError(
        f"--out {path}: is there and is no page of `vitbench compare`; name another file, or move "
        f"it away"
    )


def shown(comparison: Comparison) -> list[str]:
    """The findings in sentences; differences of single settings are in a table of their own."""
    return [sentence(told) for told in findings(comparison) if told.kind != ONE_SETTING]


def claim_text(row: Mapping[Hashable, Any]) -> str:
    """What a row of `paired` says of its difference."""
    return "identical in every seed" if row["identical"] else CLAIMS[row["claim"]]


def outcome_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per setting, best first: `setting`, and in `by` the outcome in each folder.

    Where the best settings of two folders differ, a row BEST comes before all.
    """
    best = {side.letter: side.best for side in comparison.sides}
    rows: dict[str, dict[str, Any]] = {BEST: {}} if len(set(best.values())) > 1 else {}
    for row in comparison.outcomes.to_dict("records"):
        rows.setdefault(row["setting"], {})[row["folder"]] = row
        if BEST in rows and row["setting"] == best[row["folder"]]:
            rows[BEST][row["folder"]] = row
    return [{"setting": setting, "by": by} for setting, by in rows.items()]


def outcome_text(row: dict[str, Any] | None, name: str) -> str:
    """Mean and half interval of one outcome, as text."""
    if row is None or pd.isna(row[name]):
        return "–"
    half = row[f"{name}_half"]
    return number(row[name]) if pd.isna(half) else f"{number(row[name])} ± {number(half, 2)}"
