"""compare.html: several results folders on one page, its figures and tables beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from vitbench.analysis import page, style
from vitbench.analysis.compare.figures import FIGURES
from vitbench.analysis.compare.numbers import BEST, METRICS, Comparison
from vitbench.analysis.compare.words import words
from vitbench.analysis.page import Embedder, Picture, number
from vitbench.errors import UserError
from vitbench.records.files import write_atomically

MAX_SETTINGS = 100
CLAIMS = {"less": "lower", "greater": "higher", "none": "none"}


def write(found: Comparison, path: Path) -> Path:
    """Write the page to `path`, and figures and tables into `<stem>_files` beside it.

    Raises:
        UserError: if the folder cannot be written to.
    """
    files = path.with_name(f"{path.stem}_files")
    try:
        files.mkdir(parents=True, exist_ok=True)
        pictures = _pictures(found, files)
        for name in ("outcomes", "paired", "differences"):
            getattr(found, name).to_csv(files / f"{name}.csv", index=False)
        write_atomically(path, page.render("compare.html", _content(found, files, pictures)))
    except OSError as error:
        raise UserError(
            f"--out {path}: cannot be written ({error.strerror}); name a file in a folder that "
            f"you may write to"
        ) from error
    return path


def _pictures(found: Comparison, files: Path) -> dict[str, list[Picture]]:
    """The figures of each section."""
    # Partial sweeps are labelled on every figure.
    names = ", ".join(
        f"{side.letter}: {'PARTIAL ' if side.results.partial else ''}{side.name}"
        for side in found.sides
    )
    embedder = Embedder()
    sections: dict[str, list[Picture]] = {spec.section: [] for spec in FIGURES}
    for spec in FIGURES:
        data = spec.data(found)
        if data is not None and not data.empty:
            paths = style.save(spec.draw(data, spec.title(data, names)), data, files, spec.name)
            alt = spec.describe(data)  # which names the figure itself
            picture = embedder.picture(spec.name, spec.heading, alt, paths)
            sections[spec.section].append(picture)
    return sections


def _content(found: Comparison, files: Path, pictures: dict[str, list[Picture]]) -> dict[str, Any]:
    names = " and ".join(side.name for side in found.sides)
    rows = outcome_rows(found)
    return {
        "title": f"Comparison of {names}",
        "sides": [
            {
                "letter": side.letter,
                "name": side.name,
                "subtitle": side.results.subtitle,
                "partial": side.results.partial,
                "description": side.results.sweep.get("description", ""),
            }
            for side in found.sides
        ],
        "conclusions": words(found),
        "differences": found.differences.to_dict("records"),
        "outcomes": rows[:MAX_SETTINGS],
        "left_out": max(0, len(rows) - MAX_SETTINGS),
        "paired": found.paired.head(MAX_SETTINGS).to_dict("records"),
        "metric": METRICS[found.metric],
        "figures": pictures,
        "files": files.name,
        "text": outcome_text,
        "claims": CLAIMS,
    }


def outcome_rows(found: Comparison) -> list[dict[str, Any]]:
    """One row per setting, best first: `setting`, and in `by` the outcome in each folder.

    Where the best settings of two folders differ, a row BEST comes before all.
    """
    rows: dict[str, dict[str, Any]] = {}
    if len({side.best for side in found.sides}) > 1:
        best = {side.letter: side.best for side in found.sides}
        chosen = found.outcomes["setting"] == found.outcomes["folder"].map(best)
        by = {row["folder"]: row for row in found.outcomes[chosen].to_dict("records")}
        rows[BEST] = {"setting": BEST, "by": by}
    for row in found.outcomes.to_dict("records"):
        cells = rows.setdefault(row["setting"], {"setting": row["setting"], "by": {}})
        cells["by"][row["folder"]] = row
    return list(rows.values())


def outcome_text(row: dict[str, Any] | None, name: str) -> str:
    """Mean and half interval of one outcome, as text."""
    if row is None or pd.isna(row[name]):
        return "–"
    half = row[f"{name}_half"]
    return number(row[name]) if pd.isna(half) else f"{number(row[name])} ± {number(half, 2)}"
