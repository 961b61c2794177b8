"""From rows to one JSON file, one Markdown table and one figure per benchmark."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vitbench.bench.contest import Row
from vitbench.bench.session import Session
from vitbench.errors import UserError
from vitbench.records.files import write_atomically

FORMAT = 1
# Okabe-Ito: told apart by colour-blind readers, too.
_OURS, _THEIRS = "#0072B2", "#999999"


def record(
    session: Session,
    benchmark: str,
    title: str,
    rows: Sequence[Row],
    *,
    unit: str = "images/s",
    higher_is_better: bool = True,
    reference: str,
    settings: Mapping[str, Any],
    ours: str = "vitbench",
) -> dict[str, Any]:
    """One benchmark as it ran, as its JSON file has it.

    Args:
        benchmark: names the files, e.g. `train-b16`.
        reference: the row that ratios refer to; the first where it does not take part.
        settings: everything that decides what was measured.
        ours: how the names of vitbench's own rows begin.
    """
    first = next((row for row in rows if row.name == reference), rows[0])
    return {
        "format": FORMAT,
        "benchmark": benchmark,
        "title": title,
        "hardware": session.hardware,
        "unit": unit,
        "higher_is_better": higher_is_better,
        "reference": first.name,
        "settings": settings,
        "environment": session.environment,
        "rows": [{**_summary(row, first), "ours": row.name.startswith(ours)} for row in rows],
    }


def _summary(row: Row, reference: Row) -> dict[str, Any]:
    """A row with its median, range and ratio to the reference, as far as it was measured."""
    summary: dict[str, Any] = {**asdict(row)}
    if row.rates:
        summary |= {"median": row.median, "low": min(row.rates), "high": max(row.rates)}
    both = row.rates and len(row.rates) == len(reference.rates)
    return {**summary, "ratio": row.ratio_to(reference) if both else None}


def write(record: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `<benchmark>.json`, `.md` and `.png` into the folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{record['benchmark']}{suffix}" for suffix in (".json", ".md", ".png")]
    write_atomically(paths[0], json.dumps(record, indent=1) + "\n")
    write_atomically(paths[1], markdown(record))
    draw(record, paths[2])
    return paths


def load(path: Path) -> dict[str, Any]:
    """Read one benchmark's JSON.

    Raises:
        UserError: not a file of this benchmark suite, or of another version of it.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = record["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a result of vitbench.bench ({error})") from error
    if version != FORMAT:
        raise UserError(f"{path}: format {version}, and this version reads {FORMAT}; run it again")
    return record


def markdown(record: Mapping[str, Any]) -> str:
    """The table of one benchmark, its settings below it."""
    with_memory = any(row["peak_gib"] is not None for row in record["rows"])
    head = ["", record["unit"], "range", f"against {record['reference']}"]
    head += ["peak GiB"] if with_memory else []
    lines = [
        f"### {record['title']}",
        "",
        f"| {' | '.join(head)} |  |",
        "|---" + "|--:" * (len(head) - 1) + "|---|",
    ]
    for row in record["rows"]:
        name = f"**{row['name']}**" if row["ours"] else row["name"]
        if not row["rates"]:
            lines.append(f"| {name} |{' |' * (len(head) - 1)} not measured: {row['error']} |")
            continue
        spread = f"{number(row['low'])} to {number(row['high'])}"
        cells = [name, number(row["median"]), spread, times(row["ratio"])]
        if with_memory:
            cells.append("" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}")
        lines.append("| " + " | ".join([*cells, row["note"]]) + " |")
    settings = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
    return "\n".join([*lines, "", f"{settings}.", ""])


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Bars of the medians with the range of the rounds as whiskers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in record["rows"] if row["rates"]]
    figure = Figure(figsize=(8, 1.3 + 0.36 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    medians = [row["median"] for row in rows]
    bars = axes.barh(
        [row["name"] for row in rows],
        medians,
        height=0.66,
        color=[_OURS if row["ours"] else _THEIRS for row in rows],
        xerr=[[r["median"] - r["low"] for r in rows], [r["high"] - r["median"] for r in rows]],
        error_kw={"elinewidth": 1.2},
    )
    ratios = [times(row["ratio"]) for row in rows]
    labels = [number(m) + (f"  ({r})" if r else "") for m, r in zip(medians, ratios, strict=True)]
    axes.bar_label(bars, labels, padding=5, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(row["high"] for row in rows))
    better = "more" if record["higher_is_better"] else "less"
    axes.set_xlabel(
        f"{record['unit']} ({better} is better); bar: median, line: range of the rounds"
    )
    axes.set_title(f"{record['title']}\n{record['hardware']}", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def number(value: float) -> str:
    """Three significant digits, thousands with a comma: 0.0123, 12.3, 12,300."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}"


def times(ratio: float | None) -> str:
    """A ratio as text: x1.03, x24.6; empty where there is none."""
    return "" if ratio is None else f"x{ratio:.{2 if ratio < 10 else 1}f}"


def write_results(folders: Sequence[Path], path: Path) -> None:
    """Write one page out of the result folders: per machine its environment, tables and figures.

    Raises:
        UserError: if a folder holds no results.
    """
    parts = [
        "# Benchmark results",
        "",
        "Written by `python -m vitbench.bench report`; [README.md](README.md) says how to measure "
        "and how to read the tables. Rates are medians over the rounds of one run in which all "
        "rows took turns; a ratio is the median of the ratios within each round.",
        "",
    ]
    for folder in folders:
        records = {file: load(file) for file in sorted(folder.glob("*.json"))}
        if not records:
            raise UserError(
                f"{folder}: no results there; write some with "
                f"`python -m vitbench.bench all --out {folder}`"
            )
        # Rows of the record are measured on their own, and stand in benchmarks/RECORD.md.
        records = {f: found for f, found in records.items() if not f.name.startswith("figure5")}
        if not records:
            continue
        first = next(iter(records.values()))
        parts += [f"## {first['hardware']}", "", _environment(first["environment"]), ""]
        for file, record in records.items():
            figure = os.path.relpath(file.with_suffix(".png"), path.parent)
            parts += [markdown(record), f"![{record['title']}]({figure})", ""]
            if record["environment"]["git_commit"] != first["environment"]["git_commit"]:
                parts += [f"Measured at {_commit(record['environment'])}.", ""]
    write_atomically(path, "\n".join(parts))


def _environment(facts: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    lines = [
        f"{facts['cpu']}, {facts['cpus']} cores, {facts['memory_gib']:g} GiB",
        *(facts["gpus"] or ["no GPU"]),
        f"Python {facts['python']}, {packages}",
        _commit(facts),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _commit(facts: Mapping[str, Any]) -> str:
    """Of which state, and when."""
    dirty = " with changes" if facts["git_dirty"] else ""
    return f"commit {(facts['git_commit'] or 'not known')[:12]}{dirty}, {facts['time_utc']}"
