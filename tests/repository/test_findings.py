"""docs/findings.md says what the shipped results support, and nothing else about results."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "make_findings.py"))


def close(now: Any, shipped: Any) -> None:
    """Equal but for the last digits of numbers, which processors round differently."""
    if isinstance(shipped, dict):
        assert now.keys() == shipped.keys()
        for key in shipped:
            close(now[key], shipped[key])
    elif isinstance(shipped, list):
        assert len(now) == len(shipped)
        for one, other in zip(now, shipped, strict=True):
            close(one, other)
    elif isinstance(shipped, float):
        assert now == pytest.approx(shipped, rel=1e-6, abs=1e-9)
    else:
        assert now == shipped


def test_the_page_is_made_of_what_ships(made: dict[str, Any]) -> None:
    """Made again from analysis/data, page and findings are those in the repository."""
    for path, text in made["files"](made["opened"]()).items():
        shipped = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            close(json.loads(text), json.loads(shipped))
        else:
            assert text == shipped, "run `make findings`"


def test_every_sentence_about_results_is_a_finding() -> None:
    """Each line of a list on the page is a claim, finding or limit of a shipped findings.json."""
    told: set[str] = set()
    for path in (ROOT / "analysis" / "data").glob("*/findings.json"):
        shipped = json.loads(path.read_text(encoding="utf-8"))
        told |= {claim["sentence"] for claim in shipped["claims"]} | set(shipped["limits"])
        told |= {finding["text"] for finding in shipped["findings"]}
    page = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    lines = re.findall(r"^- (.*)$", page, re.MULTILINE)
    assert len(lines) > 30
    assert set(lines) <= told


def test_every_claim_of_the_paper_has_a_section(made: dict[str, Any]) -> None:
    """Nine, each linked from the table; pictures and the files that commands name are there."""
    page = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    claims = made["paper_claims"]()
    assert len(claims) == 9
    for claim in claims:
        assert f"(#{claim.id})" in page and f'<a id="{claim.id}"></a>' in page
    pictures = re.findall(r"!\[[^\]]+\]\((images/[^)]+)\)", page)
    assert len(pictures) >= 4 and all((ROOT / "docs" / path).is_file() for path in pictures)
    for command in set(re.findall(r"python -m vitbench\.sweep ([^\s`]+)", page)):
        assert (ROOT / command).is_file()


@pytest.mark.parametrize(
    ("verdicts", "word"),
    [
        (["supported", "supported"], "supported"),
        (["refuted", "not tested"], "refuted"),
        (["supported", "refuted"], "mixed"),
        (["supported", "undecided"], "undecided"),
        (["refuted", "undecided"], "refuted"),
        (["supported", "refuted", "undecided"], "mixed"),
        (["not tested"], "not tested"),
        ([], "not tested"),
    ],
)
def test_several_verdicts_in_one_word(made: dict[str, Any], verdicts: list[str], word: str) -> None:
    """One word never says more than the verdicts that it stands for."""
    assert made["verdict_of"](verdicts) == word
