"""Sentences come out of the templates of `findings/sentences`, and out of nothing else."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import result_folder
from markupsafe import Markup

from vitbench.analysis import figures, page, results
from vitbench.analysis.compare import numbers as comparison
from vitbench.analysis.compare import page as comparison_page
from vitbench.analysis.figure_spec import supported
from vitbench.analysis.findings import render
from vitbench.analysis.page import Picture
from vitbench.analysis.report import report

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(p.parent for p in (ROOT / "analysis" / "data").glob("*/sweep.yaml"))
PACKAGE = ROOT / "vitbench" / "analysis"
WRITERS = ("findings/render.py",)  # filters that sentences are made with
# Where text is no sentence on a page: errors, the command line, meanings of keys, axes.
ELSEWHERE = ("add_argument", "Parser", "set_xlabel", "set_ylabel", "whole_numbers")
HEADINGS = ("**What this cannot tell you**",)  # of a notebook
ENDS = re.compile(r"\w[.!?](\s|$)")
VERBS = re.compile(r"\b(is|are|was|were|has|have|can|cannot|does|do)\b")


def reads_as_sentence(text: str) -> bool:
    return len(text.split()) > 3 and bool(ENDS.search(text))


class Heard:
    """What the templates made while a page was built, and what the page was built from."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: set[str] = set()
        self.pages: dict[str, Mapping[str, Any]] = {}
        line, fill = render._line, page.render

        def heard(text: str) -> str:
            self.made.add(line(text))
            return line(text)

        def filled(template: str, content: Mapping[str, Any]) -> str:
            self.pages[template] = content
            return fill(template, content)

        monkeypatch.setattr(render, "_line", heard)
        monkeypatch.setattr(page, "render", filled)

    def strangers(self, content: object, *written: str) -> list[str]:
        """Sentences and alternative texts in a page's content that no template made.

        Args:
            content: of the page.
            written: texts that the user wrote.
        """
        found = []
        for text, heading in texts(content):
            if heading is None and (not reads_as_sentence(text) or text in written):
                continue
            parts = text.removeprefix(f"{heading}. ")
            if not {text, parts} & self.made:
                found.append(text)
        return found


def texts(value: object) -> Iterator[tuple[str, str | None]]:
    """Every text inside a page's content; an alternative text with its figure's heading."""
    if isinstance(value, Picture):
        yield value.alt, value.heading
    elif isinstance(value, str) and not isinstance(value, Markup):
        yield value, None
    elif isinstance(value, results.Results | pd.DataFrame):
        return  # tables, and what the user wrote
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from texts(getattr(value, field.name))
    elif isinstance(value, Mapping):
        yield from texts([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple | set | frozenset):
        for one in value:
            yield from texts(one)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    return Heard(monkeypatch)


def pictures(specs: Any, source: Any, *found: Picture) -> dict[str, list[Picture]]:
    """Figures as a page has them, without drawing them."""
    drawn = [
        Picture(spec.heading, spec.alt(data), [], None) for spec, data in supported(specs, source)
    ]
    return {"all": [*drawn, *found]}


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda p: p.name)
def test_every_sentence_of_a_report_is_a_templates(folder: Path, heard: Heard) -> None:
    """Shipped results: findings, claims, limits, tables and alternative texts of the page."""
    opened = results.load(folder, 0.5)
    content = dict(report._content(opened, []))
    content["figures"] = pictures(figures.FIGURES, opened)
    claims = [verdict.claim.says for verdict, _ in content["claims"]]
    assert len(content["findings"]) > 1 and content["figures"]["all"]
    assert heard.strangers(content, content["description"], *claims) == []


def test_sentences_of_a_report_with_plates_and_models_without_s(
    tmp_path: Path, heard: Heard
) -> None:
    """Plates of attention; three rates, which give no S, for each of two models."""
    text = result_folder.GRID.replace("0.1, 1.0]", "0.1]").replace("0.0001, ", "")
    made = result_folder.make(tmp_path / "r", text.replace("seed:", "depth: [1, 2], seed:"))
    (made / "attention").mkdir()
    opened = results.load(made)
    for name in (opened.trials["trial_id"].iloc[0], "photos"):
        (made / "attention" / f"plate_{name}.png").write_bytes(b"")
    content = report._content(opened, [])
    for plate in content["plates"]:
        assert plate.alt.startswith(f"{plate.heading}: images, the map of each")
    assert len(content["plates"]) == 2
    reasons = [row["why_not"] for row in content["sensitivity"]]
    assert len(reasons) == 2 and all(
        "needs at least 5 learning rates" in reason for reason in reasons
    )
    assert heard.strangers(content, content["description"]) == []


def test_every_sentence_of_a_comparison_is_a_templates(tmp_path: Path, heard: Heard) -> None:
    """The page of two folders, one of them partial, with its drawings."""
    one = result_folder.make(tmp_path / "one")
    deeper = result_folder.GRID.replace("depth: 1", "depth: 2")
    two = result_folder.make(tmp_path / "two", deeper, until=20)
    made = comparison.compare([one, two])
    comparison_page.write(made, tmp_path / "page.html")
    content = heard.pages["compare.html"]
    assert len(content["findings"]) > 3 and content["limits"]
    assert [len(found) for found in content["figures"].values()] == [1, 1, 1]
    assert heard.strangers(content) == []


def test_a_sentence_from_elsewhere_is_found(heard: Heard) -> None:
    """A finding, a cell of a table and an alternative text that no template made."""
    folder = SHIPPED[0]
    opened = results.load(folder)
    content = dict(report._content(opened, []))
    content["findings"] = [*content["findings"], "The lowest loss is that of A."]
    content["labels"] = [{"label": "a", "note": "B is harder than A is."}]
    content["figures"] = pictures((), opened, Picture("Losses", "Losses. A is lower", [], None))
    assert heard.strangers(content, content["description"]) == [
        "The lowest loss is that of A.",
        "Losses. A is lower",
        "B is harder than A is.",
    ]


def written(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string in a module that may reach a page; values are written as 1."""
    for node in ast.iter_child_nodes(tree):
        called = node.func if isinstance(node, ast.Call) else None
        name = getattr(called, "attr", getattr(called, "id", ""))
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_meaning = isinstance(node, ast.AnnAssign) and "Annotated" in ast.dump(node.annotation)
        if isinstance(node, ast.Raise) or is_docstring or is_meaning or name in ELSEWHERE:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.Constant) else "1" for v in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        else:
            yield from written(node)


def sentences(source: str) -> list[str]:
    """Strings of a module's source that are sentences, or clauses with a verb."""
    return [
        f"{line}: {text}"
        for line, text in written(ast.parse(source))
        if text not in HEADINGS
        and len(text.split()) > 3
        and (ENDS.search(text) or VERBS.search(text))
    ]


def test_no_module_of_the_analysis_holds_a_sentence() -> None:
    """Not in a branch that no test takes, either: the source has none outside the templates."""
    found = {
        str(path.relative_to(PACKAGE)): told
        for path in sorted(PACKAGE.rglob("*.py"))
        if (told := sentences(path.read_text(encoding="utf-8")))
    }
    assert {name: told for name, told in found.items() if name not in WRITERS} == {}


def test_a_sentence_in_the_source_is_found() -> None:
    """An f-string, a part of one; neither a docstring, an error nor an axis."""
    source = '''
def describe(data):
    """Where the loss is lowest of all."""
    if data.empty:
        raise ValueError("the table is empty, and has no loss")
    ax.set_xlabel("epochs that were given to all")
    why = f"{data.n} seeds are the fewest"
    return f"Lowest loss of {data.n} models: {data.loss:.3g}."
'''
    assert sentences(source) == ["7: 1 seeds are the fewest", "8: Lowest loss of 1 models: 1."]
