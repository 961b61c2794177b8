"""Tables and figures of the benchmarks say what was measured, and what was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vitbench.bench import report
from vitbench.bench.contest import Row
from vitbench.bench.session import Session
from vitbench.errors import UserError


@pytest.fixture
def example() -> dict[str, Any]:
    """Two contenders that ran and one that could not."""
    session = Session(
        device="cpu",
        hardware="Some CPU, 2 cores",
        environment={"torch": "2.13.0"},
        on_progress=print,
    )
    return report.record(
        session,
        "train-b16",
        "Training, batch 16",
        [
            Row("vitbench K=1", rates=[110, 120, 100], peak_gib=0.5),
            Row("timm", rates=[100, 100, 100], peak_gib=0.75),
            Row("vitbench K=64", error="OutOfMemoryError"),
        ],
        settings={"batch": 16, "threads": 1},
        reference="timm",
    )


def test_the_json_holds_every_round(example: dict[str, Any]) -> None:
    """Readers can compute their own statistics; ours are the median and the range."""
    first, second, third = example["rows"]
    assert first["rates"] == [110, 120, 100]
    assert (first["median"], first["low"], first["high"], first["ratio"]) == (110, 100, 120, 1.1)
    assert second["ratio"] == 1
    assert "median" not in third and third["ratio"] is None


def test_write_leaves_json_table_and_figure(example: dict[str, Any], tmp_path: Path) -> None:
    """One of each, and the JSON reads back as it was written."""
    paths = report.write(example, tmp_path / "out")
    assert [path.name for path in paths] == ["train-b16.json", "train-b16.md", "train-b16.png"]
    assert report.load(paths[0]) == json.loads(json.dumps(example))
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_the_table_names_what_could_not_be_measured(example: dict[str, Any]) -> None:
    """A contender that failed keeps its line, with the reason."""
    lines = report.markdown(example).splitlines()
    ours = next(line for line in lines if "vitbench K=1" in line)
    assert ours == "| **vitbench K=1** | 110 | 100 to 120 | x1.10 | 0.50 |  |"
    assert any("K=64" in line and "not measured: OutOfMemoryError" in line for line in lines)
    assert lines[-1] == "batch 16, threads 1."


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """The message names the file and what to do."""
    other = tmp_path / "other.json"
    other.write_text('{"format": 99}', encoding="utf-8")
    with pytest.raises(UserError, match=r"other\.json: format 99"):
        report.load(other)
    other.write_text("not json", encoding="utf-8")
    with pytest.raises(UserError, match=r"other\.json: not a result"):
        report.load(other)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (9.876, "9.88"),
        (12.34, "12.3"),
        (123.4, "123"),
        (99999, "100,000"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    """More would claim a precision that a shared machine does not have."""
    assert report.number(value) == text


def test_the_page_leaves_out_rows_of_the_record(example: dict[str, Any], tmp_path: Path) -> None:
    """They stand in RECORD.md; a card that has nothing else is no fault, an empty folder is."""
    facts = {"packages": {}, "git_commit": None, "git_dirty": False, "cpu": "Some CPU", "cpus": 2}
    facts |= {"memory_gib": 8, "gpus": [], "python": "3.11", "time_utc": "2026-01-01"}
    for name, benchmark in (("a", "train-b16"), ("b", "figure5-b16")):
        named = {"benchmark": benchmark, "title": benchmark, "environment": facts}
        report.write({**example, **named}, tmp_path / name)
    later = {"benchmark": "z", "title": "later", "environment": {**facts, "git_commit": "abc"}}
    report.write({**example, **later}, tmp_path / "a")
    page = tmp_path / "RESULTS.md"
    report.write_results([tmp_path / "a", tmp_path / "b"], page)
    assert page.read_text().count("Measured at commit abc, 2026-01-01.") == 1
    assert "train-b16" in page.read_text() and "figure5" not in page.read_text()
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="no results there"):
        report.write_results([tmp_path / "c"], page)
