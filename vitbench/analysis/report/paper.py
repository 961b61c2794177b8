"""Figures for a paper: as wide as a column, without titles, with captions and BibTeX to paste."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vitbench.analysis import figure_spec, figures, style
from vitbench.analysis.report import latex
from vitbench.analysis.results import Results
from vitbench.records.files import write_atomically

FOLDER = "paper"


def write(results: Results) -> list[Path]:
    """Write `<results>/paper`: a PDF per figure, `figures.tex` and `vitbench.bib`.

    Figures of several panels beside each other are as wide as both columns.
    """
    folder = results.folder / FOLDER
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.pdf"):
        old.unlink()
    paths, floats = [], []
    for spec, data in figure_spec.supported(figures.FIGURES, results):
        with style.for_paper(style.COLUMN_IN):
            figure = spec.draw(data, spec.title(data, results.subtitle))
        wide = _across(figure) > 1
        if wide:
            with style.for_paper(style.COLUMNS_IN):
                figure = spec.draw(data, spec.title(data, results.subtitle))
        paths.append(folder / f"{spec.name}.pdf")
        style.save_picture(figure, paths[-1])
        caption = f"{spec.alt(data)} ({results.subtitle}.)"
        floats.append(_float(spec.name, caption, wide))
    paths += [folder / "figures.tex", folder / "vitbench.bib"]
    write_atomically(paths[-2], "\n".join(floats))
    write_atomically(paths[-1], bibtex(results.environment))
    return paths


def _across(figure: Figure) -> int:
    """How many panels stand side by side."""
    grids: list[Any] = [ax.get_subplotspec() for ax in figure.axes]
    return max((grid.get_gridspec().ncols for grid in grids if grid), default=1)


def _float(name: str, caption: str, wide: bool) -> str:
    kind = "figure*" if wide else "figure"
    return (
        f"\\begin{{{kind}}}\n  \\centering\n  \\includegraphics[width=\\linewidth]{{{name}.pdf}}\n"
        f"  \\caption{{{latex.escaped(caption)}}}\n  \\label{{fig:{name}}}\n\\end{{{kind}}}\n"
    )


def bibtex(environment: dict[str, Any]) -> str:
    """How to cite the version that made the results."""
    return (
        "@software{vitbench,\n"
        "  title   = {vitbench: sweeps of compact Vision Transformers},\n"
        "  author  = {{vitbench contributors}},\n"
        f"  version = {{{environment.get('vitbench', '?')}}},\n"
        f"  year    = {{{str(environment.get('time_utc', ''))[:4]}}}\n"
        "}\n"
    )
