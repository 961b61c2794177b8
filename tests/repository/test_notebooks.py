"""The notebooks run from top to bottom on the results that ship with them."""

from __future__ import annotations

import ast
import json
import os
import warnings
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from vitbench.analysis import notebook, results
from vitbench.errors import UserError

FOLDER = Path(__file__).parents[2] / "analysis"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_the_notebooks_are_there() -> None:
    """The list that the README gives."""
    assert [path.stem for path in NOTEBOOKS] == [
        "01_learning_rate", "02_label_difficulty", "03_attention", "04_architecture",
        "05_data_size", "06_vit_and_cnn",
    ]  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stripped_and_calls_the_package(path: Path) -> None:
    """No outputs, no counters, prose before code, and nothing computed in a cell."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert cells[0]["cell_type"] == "markdown"
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            source = "".join(cell["source"])
            assert not any(word in source for word in ("numpy", "scipy", "groupby", "def ", "for "))


def shown(path: Path) -> list[Any]:
    """Run the cells of a notebook in this process; what each leaves on its last line."""
    names: dict[str, Any] = {"__name__": "__main__"}
    values = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            last = tree.body.pop()
            assert isinstance(last, ast.Expr), f"cell {number} shows nothing"
            place = f"{path.stem}[{number}]"
            exec(compile(tree, place, "exec"), names)
            values.append(eval(compile(ast.Expression(last.value), place, "eval"), names))
    return values


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(
    path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every cell, without an error or a warning, with pictures and text among the outputs."""
    monkeypatch.delenv("RESULTS", raising=False)
    monkeypatch.chdir(FOLDER)
    with warnings.catch_warnings():
        for category in (UserWarning, RuntimeWarning, FutureWarning):
            warnings.simplefilter("error", category)
        values = shown(path)
        pictures = [v._repr_png_() for v in values if isinstance(v, notebook.Picture)]
    assert pictures and all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert any(isinstance(value, notebook.Text) and len(value) > 100 for value in values)
    assert capfd.readouterr().err == ""


def test_a_notebook_runs_in_jupyter(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel of its own; pictures and sentences arrive as Jupyter shows them."""
    path = FOLDER / "03_attention.ipynb"
    monkeypatch.delenv("RESULTS", raising=False)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    )
    content = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        content, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    )
    client.execute()
    outputs = [output for cell in content.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 1
    assert any("text/markdown" in output.get("data", {}) for output in outputs)
    assert [output for output in outputs if output.get("name") == "stderr"] == []


def test_own_results_take_the_place_of_those_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """RESULTS names any results folder."""
    shipped = FOLDER / "data" / "mnist_lr_sensitivity"
    monkeypatch.setenv("RESULTS", str(shipped))
    assert notebook.open_results("anything").folder == shipped


def test_a_figure_that_the_results_do_not_support() -> None:
    """The message names those that they do."""
    found = results.load(FOLDER / "data" / "mnist_lr_sensitivity")
    with pytest.raises(UserError, match=r"it has .*lr_sensitivity"):
        notebook.figure(found, "label_difficulty")
