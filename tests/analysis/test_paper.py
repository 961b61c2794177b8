"""Figures for a paper: as wide as a column, without titles, with captions that LaTeX takes."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import result_folder

from vitbench.analysis import figure_spec, figures, results, style
from vitbench.analysis.__main__ import main
from vitbench.analysis.report import latex


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
    assert (
        text.count(r"\caption{") == len(pdfs) == text.count(r"\includegraphics[width=\linewidth]{")
    )
    assert not re.search(r"(?<!\\)[%&#]", text), "signs that LaTeX reads as its own"
    assert "@software{vitbench" in (made / "paper" / "vitbench.bib").read_text()
    assert str(made / "paper" / "figures.tex") in printed
    assert figures.by_name(results.load(made), "lr_sensitivity").get_suptitle()


def test_words_stay_inside_a_column(tmp_path: Path) -> None:
    """No title; legends and labels that were made for a wide page are broken."""
    text = result_folder.GRID + "target_accuracy: 0.5\n"
    opened = results.load(result_folder.make(tmp_path / "made", text))
    for name in ("lr_sensitivity", "time_to_target"):
        with style.for_paper(style.COLUMN_IN):
            figure = figures.by_name(opened, name)
        assert not figure.get_suptitle()
        figure.draw_without_rendering()
        box = figure.bbox
        for legend in figure.legends:
            assert legend.get_window_extent().width <= box.width
        for ax in figure.axes:
            assert ax.get_tightbbox().height <= box.height
            assert ax.xaxis.label.get_window_extent().x1 <= box.x1


def test_latex_is_told_its_own_signs() -> None:
    """Names of labels, models and settings may hold any of them."""
    assert latex.escaped("50_% {a} \\ ^~ <1> R²") == (
        r"50\_\% \{a\} \textbackslash{} \textasciicircum{}\textasciitilde{} $<$1$>$ R$^2$"
    )


def test_tables_are_no_wider_than_a_page(tmp_path: Path) -> None:
    """A wide one is scaled, or set in small type where it breaks between pages; all are there."""
    text = result_folder.GRID.replace("seed: [0, 1, 2, 3, 4, 5]", "seed: [0, 1, 2]")
    made = result_folder.make(tmp_path / "few", text)
    assert main([str(made), "--latex"]) == 0
    tables = {path.stem: path.read_text() for path in (made / "latex").iterdir()}
    assert r"\resizebox{\linewidth}{!}{%" in tables["trials"]
    assert r"\resizebox" not in tables["pairs"]
    rates = tables["by_rate"].splitlines()
    assert sum(r" $\pm$ " in line for line in rates) == 5
    assert r"\shortstack[l]{validation\\loss}" in tables["trials"]
    # Over several pages it cannot be scaled: long texts are set in lines.
    cells = pd.DataFrame(
        {"setting": ["depth 1, learning rate 0.00003"] * 50, "95 % end": ["1"] * 50}
    )
    cells = cells.assign(**{f"wide heading {n}": "0.1234" for n in range(9)})
    own = made / "latex" / "thesis.tex"
    own.write_text("the user's")
    gone = latex.Table("pairs", "has no rows any more", cells[:0])
    (path,) = latex.write(results.load(made), [latex.Table("long", "made", cells), gone])
    assert path.name == "long.tex"
    assert own.read_text() == "the user's" and not (made / "latex" / "pairs.tex").exists()
    text = path.read_text()
    assert r"\begin{longtable}{p{0.2\linewidth}" + 10 * "l" + "}" in text
    assert r"\shortstack[l]{wide\\heading\\0}" in text
    assert r"\shortstack[l]{95~\%\\end}" in text
