"""The tables of the report as LaTeX, one file each, for a paper.

They need the packages booktabs, graphicx and longtable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vitbench.analysis.data_size import figures as data_size
from vitbench.analysis.data_size.findings import fits_of
from vitbench.analysis.data_size.power_law import Fitted
from vitbench.analysis.page import number
from vitbench.analysis.results import Results
from vitbench.analysis.statistics import Interval
from vitbench.records.files import write_atomically

FOLDER = "latex"
_LONG = 40  # rows that no longer fit on a page
_WIDE = 80  # letters across a page
_LINE, _COLUMN = 24, r"p{0.2\linewidth}"  # letters of a text that gets a column with lines
_NONE = "--"
_SIGNS = str.maketrans(
    {sign: rf"\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
       "<": "$<$", ">": "$>$", "|": "$|$", "±": r"$\pm$", "×": r"$\times$", "²": "$^2$",
       "⁻": "$^{-}$", "ⁿ": "$^n$", "ᵇ": "$^b$", "–": "--", "…": r"\ldots{}", "\n": " "}
)  # fmt: skip
Cell = Callable[[Mapping[Any, Any]], str]


@dataclass(frozen=True)
class Table:
    """One table: the stem of its file, what it shows, and its cells as text."""

    name: str
    caption: str
    cells: pd.DataFrame

    @classmethod
    def of(
        cls, name: str, caption: str, rows: Iterable[Mapping[Any, Any]], columns: Mapping[str, Cell]
    ) -> Table:
        """A table of rows, with a function for the text of each column."""
        cells = [{head: cell(row) for head, cell in columns.items()} for row in rows]
        frame = pd.DataFrame(cells, columns=list(columns))
        empty = [head for head in frame if frame[head].isin(["", _NONE]).all()]
        return cls(name, caption, frame.drop(columns=empty))


def write(results: Results, tables: Iterable[Table]) -> list[Path]:
    """Write the tables that have rows into `<results>/latex`; one that has none now goes.

    Files of other names are the user's.
    """
    folder = results.folder / FOLDER
    folder.mkdir(exist_ok=True)
    paths = []
    for table in tables:
        path = folder / f"{table.name}.tex"
        if len(table.cells):
            write_atomically(path, _latex(table, results.subtitle))
            paths.append(path)
        else:
            path.unlink(missing_ok=True)
    return paths


def _latex(table: Table, subtitle: str) -> str:
    """A float, or a table over several pages.

    Of one wider than a page the headings are set word below word, and the rest smaller if need be.
    """
    cells = table.cells.map(escaped).rename(columns=escaped)
    long = len(cells) > _LONG
    letters = _letters(cells, [str(head) for head in cells])
    if letters > _WIDE:
        letters = _letters(cells, [max(str(head).split(" "), key=len) for head in cells])
        cells = cells.rename(columns=_word_below_word)
    columns = ["l"] * cells.shape[1]
    if long:  # cannot be scaled, as it breaks between pages: long texts are set in lines
        columns = [_COLUMN if w > _LINE else "l" for w in _widths(cells)]
    text = str(
        cells.to_latex(
            index=False,
            caption=escaped(f"{table.caption} ({subtitle})."),
            label=f"tab:{table.name}",
            column_format="".join(columns),
            longtable=long,
        )
    )
    if letters <= _WIDE:
        return text
    if long:
        size = "tiny" if letters > 1.2 * _WIDE else "scriptsize"
        gap_pt = 3 if _COLUMN in columns else 1
        return f"{{\\{size}\\setlength{{\\tabcolsep}}{{{gap_pt}pt}}\n{text}}}\n"
    text = text.replace(r"\begin{tabular}", "\\resizebox{\\linewidth}{!}{%\n\\begin{tabular}")
    return text.replace(r"\end{tabular}", "\\end{tabular}}")


def _letters(cells: pd.DataFrame, heads: Sequence[str]) -> int:
    """How wide a table is, with a space of two letters between its columns."""
    return sum(max(len(head), w) + 2 for head, w in zip(heads, _widths(cells), strict=True))


def _widths(cells: pd.DataFrame) -> list[int]:
    """Letters of the longest cell of each column."""
    return [int(cells[column].str.len().max()) for column in cells]


def _word_below_word(head: str) -> str:
    words = head.replace(r" \%", r"~\%").split(" ")  # `95 %` stays in one line
    return r"\shortstack[l]{" + r"\\".join(words) + "}" if len(words) > 1 else head


def escaped(text: str) -> str:
    """Text with LaTeX's own signs made harmless, and others than letters as it knows them."""
    return text.translate(_SIGNS)


def value(key: str, digits: int = 3) -> Cell:
    """A column as the report has its numbers."""

    def cell(row: Mapping[Any, Any]) -> str:
        found = row[key]
        shown = number(found, digits) if isinstance(found, float) or pd.isna(found) else str(found)
        return _NONE if shown == "–" else ("never" if shown == "inf" else shown)

    return cell


def mean(key: str) -> Cell:
    """A mean with half its interval, as in the report."""

    def cell(row: Mapping[Any, Any]) -> str:
        found: Interval | None = row[key]
        if found is None:
            return _NONE
        return f"{found.mean:.3f}" + ("" if found.half is None else f" ± {found.half:.3f}")

    return cell


def ends(low: str, high: str, digits: int = 3) -> Cell:
    """Two columns as an interval."""

    def cell(row: Mapping[Any, Any]) -> str:
        if pd.isna(row[low]) or pd.isna(row[high]):
            return _NONE
        return f"[{number(row[low], digits)}, {number(row[high], digits)}]"

    return cell


def of_sizes(results: Results) -> list[Table]:
    """Error, loss and best rate by number of images, and the laws."""
    rows = data_size.table(results).to_dict("records")
    several = len({row["curve"] for row in rows}) > 1
    model: dict[str, Cell] = {"model": value("curve")} if several else {}
    sizes = Table.of(
        "data_size", "Test error at each number of training images, at its own best learning rate",
        rows,
        {
            **model,
            "images": lambda row: f"{row['images']:,.0f}",
            "learning rate": value("rate"),
            "test error": value("error"),
            "95 % interval": ends("low", "high"),
            "test loss": value("loss"),
            "cost of one rate": lambda row: _NONE if math.isnan(row["cost"])
            else f"{100 * row['cost']:+.0f} %",
        },
    )  # fmt: skip
    laws = [
        {"curve": name, **vars(fitted)}
        for name, fitted in fits_of(results).items()
        if isinstance(fitted, Fitted)
    ]
    law = Table.of(
        "data_size_law", "The law of error against images, also without the largest size", laws,
        {
            **({"model": value("curve")} if len(laws) > 1 else {}),
            "a": value("a"),
            "b": value("b", 2),
            "95 % interval of b": _pair("b_ends"),
            "c": value("c", 2),
            "95 % interval of c": _pair("c_ends"),
            "foretold": value("foretold"),
            "seen": value("seen"),
            "miss": lambda row: f"{100 * row['miss']:+.0f} %",
        },
    )  # fmt: skip
    return [sizes, law]


def _pair(key: str) -> Cell:
    return lambda row: f"[{number(row[key][0], 2)}, {number(row[key][1], 2)}]"
