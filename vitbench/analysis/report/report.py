"""report.html: the results of a sweep as one page that needs no network."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from vitbench.analysis import drawings, figures
from vitbench.analysis.alt_text import describe, heading
from vitbench.analysis.attention import plates as attention_plates
from vitbench.analysis.attention import spread as attention_spread
from vitbench.analysis.labels import numbers as labels
from vitbench.analysis.learning_rate import curves
from vitbench.analysis.learning_rate import sensitivity as lr_sensitivity
from vitbench.analysis.report import page, svg_curves, verdict
from vitbench.analysis.report.page import Picture, Room, number
from vitbench.analysis.results import Results, load
from vitbench.analysis.statistics import setting
from vitbench.analysis.time_to_target import words as speed_words
from vitbench.records.files import write_atomically
from vitbench.records.history import History
from vitbench.records.rows import STATUSES
from vitbench.records.tables import LEDGER

NAME = "report.html"
MAX_EMBEDDED_BYTES = 7_000_000  # base64 adds a third: the page stays below 10 MB
MAX_ROWS = 2000
_ATTENTION = "attention"
_ORDER = (
    "best_so_far", "pareto_front", "importance", "search_slices", "interactions",
    "parallel_coordinates", "rung_correlation",
)  # fmt: skip
_SPREAD = "attention_spread"
_LABELS = ("label_difficulty", "label_curves")
_SPEED = ("time_to_target", "performance_profile")
_RESULT_COLUMNS = (
    ("status", "state"),
    ("epochs", "epochs"),
    ("train_loss", "train loss"),
    ("val_loss", "val loss"),
    ("test_loss", "test loss"),
    ("val_accuracy", "val acc."),
    ("test_accuracy", "test acc."),
    ("best_epoch", "best epoch"),
    ("best_val_loss", "best val loss"),
    ("images_per_s", "images/s"),
    ("wall_s", "wall s"),
)


def draw_and_write(folder: Path, target: float | None = None) -> list[Path]:
    """Draw every figure of a results folder and write its report; the report is the last path.

    Args:
        folder: the results folder.
        target: validation accuracy to time the arms by; the sweep's own if left out.
    """
    return [*figures.draw_all(folder, target), write(load(folder, target))]


def write(results: Results) -> Path:
    """Write report.html from the tables and the figures that are there already.

    Figures must have been drawn before (figures.draw_all); the page holds their pictures, and
    links to their PNG, PDF and CSV beside it.
    """
    text = page.render("report.html", _content(results))
    path = results.folder / NAME
    write_atomically(path, text)
    return path


def _content(results: Results) -> dict[str, Any]:
    paired = verdict.paired_table(results)
    found = verdict.verdict(results, paired)
    room = Room(MAX_EMBEDDED_BYTES)
    pictures = {p.name: p for p in _pictures(results.folder, room)}
    names, _ = curves.panels(results.trials)
    grid = results.sweep["search"]["method"] == "grid"
    sensitivity = lr_sensitivity.table(results.trials, names)
    chart = (
        svg_curves.learning_curves(curves.learning_curves_data(results))
        if grid and not results.epochs.empty
        else None
    )
    lr_figures = [p for name, p in pictures.items() if name.startswith(("lr_sens", "heat_lr"))]
    lr_figures += [pictures[name] for name in ("loss_by_lr",) if name in pictures and grid]
    curve_figure = pictures.get("learning_curves")
    speed_figures = [pictures[name] for name in _SPEED if name in pictures]
    label_figures = [pictures[name] for name in _LABELS if name in pictures]
    shown = {p.name for p in lr_figures} | {"learning_curves", _SPREAD, *_SPEED, *_LABELS}
    return {
        "name": results.sweep["name"],
        "description": results.sweep.get("description", ""),
        "subtitle": results.subtitle,
        "partial": results.partial,
        "source": results.environment.get("image_source", results.dataset),
        "time": results.environment.get("time_utc", ""),
        "verdict": found,
        "lr_figures": lr_figures,
        "sensitivity": _sensitivity_rows(sensitivity, names)
        if grid and len(sensitivity) > 1 and results.trials["lr"].nunique() > 1
        else [],
        "chart": chart,
        "curve_figure": curve_figure,
        "paired": paired.to_dict("records"),
        "labels": labels.table(results),
        "label_figures": label_figures,
        "target": results.target,
        "speed": speed_words.table(results),
        "speed_figures": speed_figures,
        "search": None if grid else results.sweep["search"],
        "other_figures": sorted(
            (p for name, p in pictures.items() if name not in shown),
            key=lambda p: (_ORDER.index(p.name) if p.name in _ORDER else len(_ORDER), p.name),
        ),
        "plates": _plates(results.folder, room),
        "looks": attention_plates.table(results.folder),
        "spread": pictures.get(_SPREAD),
        "spread_words": attention_spread.caption(attention_spread.spread_data(results)),
        "trials": _trial_table(results),
        "states": _states(results.trials),
        "budget": _budget(results),
        "provenance": _provenance(results),
    }


def _pictures(folder: Path, room: Room) -> list[Picture]:
    found = []
    for png in sorted((folder / "figures").glob("*.png")):
        data = png.with_suffix(".csv")
        files = [png.with_suffix(f".{kind}") for kind in ("png", "pdf", "csv")]
        links = [(f.suffix[1:].upper(), f"figures/{f.name}") for f in files if f.is_file()]
        frame = drawings.read(data) if data.is_file() else pd.DataFrame()
        alt = describe(png.stem, frame)
        found.append(Picture(png.stem, heading(png.stem), alt, links, room.uri(png)))
    return found


def _plates(folder: Path, room: Room) -> list[Picture]:
    """Plates of attention maps, where `vitbench.attention` has written them."""
    found = []
    for png in sorted((folder / _ATTENTION).glob("plate_*.png")):
        title = png.stem.removeprefix("plate_").replace("_", " ")
        links = [("PNG", f"{_ATTENTION}/{png.name}")]
        alt = f"Images with the attention of the last layer laid over them: {title}"
        found.append(Picture(png.stem, title, alt, links, room.uri(png)))
    return found


def _sensitivity_rows(table: pd.DataFrame, names: list[str]) -> list[dict[Any, Any]]:
    """The table's rows with their model in words."""
    return [
        {**row, "cell": ", ".join(setting(name, row[name]) for name in names)}
        for row in table.to_dict("records")
    ]


def _trial_table(results: Results) -> dict[str, Any]:
    """The trials, best first; what does not fit is in trials.csv."""
    trials = results.trials
    settings = [name for name in [*verdict.arm_names(trials), "seed"] if name in trials]
    ordered = trials.sort_values("best_val_loss", na_position="last", kind="stable")
    rows = []
    for row in ordered.head(MAX_ROWS).to_dict("records"):
        cells = [(number(row[n], 6), _sort_key(row[n])) for n in settings]
        cells += [(number(row[n]), _sort_key(row[n])) for n, _ in _RESULT_COLUMNS]
        error = row["error"]
        reason = "" if pd.isna(error) else str(error)
        if row["status"] == "diverged" and not reason and not pd.isna(row["diverged_epoch"]):
            reason = f"loss not finite at epoch {row['diverged_epoch']}"
        rows.append({"id": row["trial_id"], "cells": cells, "reason": reason})
    heads = [*(n.replace("_", " ") for n in settings), *(text for _, text in _RESULT_COLUMNS)]
    return {"heads": heads, "rows": rows, "left_out": max(0, len(trials) - MAX_ROWS)}


def _sort_key(value: Any) -> str:
    if value is None or pd.isna(value):
        return ""
    return repr(float(value)) if isinstance(value, int | float) else str(value)


def _states(trials: pd.DataFrame) -> list[tuple[str, int, str]]:
    """Each state that occurs: how often, and what it means."""
    counts = trials["status"].value_counts()
    return [(s, int(counts[s]), meaning) for s, meaning in STATUSES.items() if s in counts]


def _budget(results: Results) -> list[tuple[str, str, str]]:
    """What was planned, and what was used: (quantity, planned, used)."""
    trials, limits = results.trials, results.sweep.get("budget", {})
    planned_epochs = int(trials["planned_epochs"].fillna(0).sum())
    done = int(trials["status"].isin(["finished", "stopped", "diverged"]).sum())
    suggestions = results.sweep["search"]["method"] != "grid"
    asked = results.sweep["search"]["suggestions"] if suggestions else len(trials)
    rows = [("suggestions" if suggestions else "models", f"{asked:,}", f"{done:,} models ended")]
    rows.append(("epochs of all models", f"{planned_epochs:,}", f"{len(results.epochs):,}"))
    ledger = results.folder / LEDGER
    if ledger.is_file():
        history = History.read(ledger)
        hours = limits.get("hours")
        rows.append(
            ("wall-clock time", f"{hours:g} h" if hours else "no limit", _span(history.spent_s))
        )
        rows.append(("stacks' training time together", "–", _span(history.stack_seconds)))
    for key, text in (
        ("gpu_hours", "GPU hours"),
        ("trials", "models (limit)"),
        ("epochs", "epochs (limit)"),
    ):
        if limits.get(key):
            rows.append((text, f"{limits[key]:g}", "see above"))
    return rows


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _provenance(results: Results) -> dict[str, Any]:
    """Versions, hardware, commit, checksum, and the command that runs it again."""
    env = results.environment
    commit = env.get("git_commit") or "not from a git checkout"
    packages = env.get("packages", {})
    versions = [f"vitbench {env.get('vitbench', '?')}", f"Python {env.get('python', '?')}"]
    versions += [f"{name} {version}" for name, version in packages.items() if version]
    gpus = ", ".join(env.get("gpus", [])) or "no GPU"
    facts = [
        ("images", str(env.get("image_source", results.dataset))),
        ("data checksum", str(env.get("data_checksum", "?"))),
        ("commit", f"{commit}{' with uncommitted changes' if env.get('git_dirty') else ''}"),
        ("versions", ", ".join(versions)),
        ("hardware", f"{env.get('cpu', '?')}, {env.get('cpus', '?')} CPUs, "
                     f"{env.get('memory_gib', '?')} GiB memory, {gpus}"),
        ("system", str(env.get("platform", "?"))),
        ("started", str(env.get("time_utc", "?"))),
    ]  # fmt: skip
    words = [str(word) for word in env.get("command", [])]
    return {"facts": facts, "command": shlex.join(words)}
