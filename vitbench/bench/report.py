"""From rows to one JSON file, one Markdown table and one figure per benchmark."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vitbench.bench.contest import Row
from vitbench.errors import UserError
from vitbench.records.files import write_atomically

FORMAT = 1
# Okabe-Ito: told apart by colour-blind readers, too.
_OURS, _THEIRS = "#0072B2", "#999999"


@dataclass(frozen=True, kw_only=True)
class Report:
    """One benchmark as it ran.

    Attributes:
        benchmark: names the files, e.g. `train-b16`.
        title: of table and figure.
        hardware: what was measured, in words.
        unit: what the rates count, e.g. `images/s`.
        higher_is_better: False where the figures are costs.
        reference: name of the row that ratios refer to.
        settings: everything that decides what was measured.
        environment: versions and hardware.
        rows: one per contender.
        ours: names of the rows that are vitbench's own.
    """

    benchmark: str
    title: str
    hardware: str
    unit: str
    higher_is_better: bool = True
    reference: str
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    rows: Sequence[Row]
    ours: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Everything, with each row's median, range and ratio to the reference."""
        rows = []
        for row in self.rows:
            rates = row.rates
            summary = {"median": row.median, "low": min(rates), "high": max(rates)} if rates else {}
            ours = row.name in self.ours
            rows.append({**asdict(row), **summary, "ratio": self._ratio(row), "ours": ours})
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "ours"}
        return {"format": FORMAT, **shown, "rows": rows}

    def _ratio(self, row: Row) -> float | None:
        reference = next((r for r in self.rows if r.name == self.reference), None)
        if reference is None or not reference.rates or len(row.rates) != len(reference.rates):
            return None
        return row.ratio_to(reference)


def write(report: Report, folder: Path) -> list[Path]:
    """Write `<benchmark>.json`, `.md` and `.png` into the folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    record = report.to_json()
    paths = [folder / f"{report.benchmark}{suffix}" for suffix in (".json", ".md", ".png")]
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
    head += ["peak GiB", ""] if with_memory else [""]
    lines = [
        f"### {record['title']}",
        "",
        "| " + " | ".join(head) + " |",
        "|---" + "|--:" * (len(head) - 2) + "|---|",
    ]
    for row in record["rows"]:
        name = f"**{row['name']}**" if row["ours"] else row["name"]
        if not row["rates"]:
            empty = " |" * (len(head) - 2)
            lines.append(f"| {name} |{empty} not measured: {row['error']} |")
            continue
        ratio = "" if row["ratio"] is None else times(row["ratio"])
        cells = [
            name,
            number(row["median"]),
            f"{number(row['low'])} to {number(row['high'])}",
            ratio,
        ]
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
    for place, row in enumerate(rows):
        axes.barh(place, row["median"], color=_OURS if row["ours"] else _THEIRS, height=0.66)
        axes.plot([row["low"], row["high"]], [place, place], color="black", linewidth=1.2)
        ratio = "" if row["ratio"] is None else f"  ({times(row['ratio'])})"
        axes.annotate(
            f"{number(row['median'])}{ratio}",
            (max(row["high"], row["median"]), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.invert_yaxis()
    top = max(row["high"] for row in rows)
    axes.set_xlim(0, top * 1.25)
    better = "more" if record["higher_is_better"] else "less"
    axes.set_xlabel(
        f"{record['unit']} ({better} is better); bar: median, line: range of the rounds"
    )
    axes.set_title(f"{record['title']}\n{record['hardware']}", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def number(value: float) -> str:
    """Three significant digits, thousands with a comma: 0.0123, 12.3, 12,300."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}"


def times(ratio: float) -> str:
    """A ratio as text: x1.03, x24.6."""
    return f"x{ratio:.2f}" if ratio < 10 else f"x{ratio:.1f}"


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
        files = sorted(folder.glob("*.json"))
        if not files:
            raise UserError(
                f"{folder}: no results there; write some with "
                f"`python -m vitbench.bench all --out {folder}`"
            )
        records = [load(file) for file in files]
        parts += [f"## {records[0]['hardware']}", "", _environment(records[0]["environment"]), ""]
        for file, record in zip(files, records, strict=True):
            figure = os.path.relpath(file.with_suffix(".png"), path.parent)
            parts += [markdown(record), f"![{record['title']}]({figure})", ""]
    write_atomically(path, "\n".join(parts))


def _environment(facts: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    commit = (facts["git_commit"] or "not known")[:12]
    dirty = " with changes" if facts["git_dirty"] else ""
    lines = [
        f"{facts['cpu']}, {facts['cpus']} cores, {facts['memory_gib']:g} GiB",
        *(facts["gpus"] or ["no GPU"]),
        f"Python {facts['python']}, {packages}",
        f"commit {commit}{dirty}, {facts['time_utc']}",
    ]
    return "\n".join(f"- {line}" for line in lines)
