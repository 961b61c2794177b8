"""compare.html: several results folders on one page, its figures and tables beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from vitbench.analysis import style
from vitbench.analysis.compare import figures as comparison_figures
from vitbench.analysis.compare.numbers import BEST, METRICS, Comparison
from vitbench.analysis.compare.words import words
from vitbench.analysis.report import page
from vitbench.analysis.report.page import Picture, Room, number
from vitbench.errors import UserError
from vitbench.records.files import write_atomically

MAX_SETTINGS = 100
CLAIMS = {"less": "lower", "greater": "higher", "none": "none"}
_MAX_BYTES = 7_000_000


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


def _pictures(found: Comparison, files: Path) -> dict[str, Picture]:
    room, pictures = Room(_MAX_BYTES), {}
    # Partial sweeps are labelled on every figure.
    names = ", ".join(
        f"{side.letter}: {'PARTIAL ' if side.results.partial else ''}{side.name}"
        for side in found.sides
    )
    metric = METRICS[found.metric]

    def keep(figure: Figure, data: pd.DataFrame, name: str, heading: str, alt: str) -> None:
        paths = style.save(figure, data, files, name)
        links = [(p.suffix[1:].upper(), f"{files.name}/{p.name}") for p in paths]
        pictures[name] = Picture(name, heading, alt, links, room.uri(paths[0]))

    if not found.curves.empty:
        title = f"Learning curves ({names})"
        figure = comparison_figures.draw_curves(found.curves, title)
        alt = comparison_figures.curves_text(found.curves)
        keep(figure, found.curves, "merged_curves", "Learning curves", alt)
    if not found.pairs.empty:
        data = comparison_figures.differences_data(found.paired, found.pairs, metric)
        title = f"Paired differences in {metric} ({names})"
        figure = comparison_figures.draw_differences(data, title)
        alt = comparison_figures.differences_text(data)
        keep(figure, data, "paired_differences", "Paired differences", alt)
    return pictures


def _content(found: Comparison, files: Path, pictures: dict[str, Picture]) -> dict[str, Any]:
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
        "verdict": words(found),
        "differences": found.differences.to_dict("records"),
        "outcomes": rows[:MAX_SETTINGS],
        "left_out": max(0, len(rows) - MAX_SETTINGS),
        "paired": found.paired.head(MAX_SETTINGS).to_dict("records"),
        "metric": METRICS[found.metric],
        "curves": pictures.get("merged_curves"),
        "paired_figure": pictures.get("paired_differences"),
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
