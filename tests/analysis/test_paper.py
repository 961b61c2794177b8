"""Figures for a paper: as wide as a column, without titles, with captions that LaTeX takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import result_folder

from vitbench.analysis import figure_spec, figures, results, style
from vitbench.analysis.__main__ import main


def width_in(pdf: Path) -> float:
    """From the PDF's own page size, in points of 1/72 inch."""
    found = re.search(rb"/MediaBox\s*\[\s*0 0 ([\d.]+)", pdf.read_bytes())
    assert found
    return float(found[1]) / 72


def test_every_figure_fits_a_column_or_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A float and a PDF each; TrueType fonts; nothing of the report's own figures changes."""
    made = result_folder.make(tmp_path / "made_of_100%")
    assert main([str(made), "--for-paper"]) == 0
    printed = capsys.readouterr().out.split()
    supported = figure_spec.supported(figures.FIGURES, results.load(made))
    pdfs = sorted((made / "paper").glob("*.pdf"))
    assert [pdf.stem for pdf in pdfs] == sorted(spec.name for spec, _ in supported)
    widths = {pdf.stem: width_in(pdf) for pdf in pdfs}
    assert widths["lr_sensitivity"] == pytest.approx(3.25)
    assert widths["loss_by_lr"] == pytest.approx(6.75), "three panels side by side"
    assert all(b"/Type3" not in pdf.read_bytes() for pdf in pdfs)
    text = (made / "paper" / "figures.tex").read_text()
    assert text.count(r"\caption{") == len(pdfs) == text.count(r"\includegraphics{")
    assert not re.search(r"(?<!\\)[%&#]", text), "signs that LaTeX reads as its own"
    assert "@software{vitbench" in (made / "paper" / "vitbench.bib").read_text()
    assert str(made / "paper" / "figures.tex") in printed
    assert figures.by_name(results.load(made), "lr_sensitivity").get_suptitle()


def test_words_stay_inside_a_column(tmp_path: Path) -> None:
    """No title; legends and labels that were made for a wide page are broken."""
    opened = results.load(result_folder.make(tmp_path / "made"))
    with style.for_paper(style.COLUMN_IN):
        figure = figures.by_name(opened, "lr_sensitivity")
    assert not figure.get_suptitle()
    figure.draw_without_rendering()
    box = figure.bbox
    for legend in figure.legends:
        assert legend.get_window_extent().width <= box.width
    for ax in figure.axes:
        assert ax.get_tightbbox().height <= box.height
