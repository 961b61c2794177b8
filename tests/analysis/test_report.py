"""report.html: one file, whole without network and JavaScript, saying what the tables say."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import result_folder

from vitbench.analysis import __main__, results, summary
from vitbench.analysis.learning_rate import figures as curves
from vitbench.analysis.report import report, svg_curves
from vitbench.config import Budget


class Page(HTMLParser):
    """What a page refers to, the alternative texts, and whether tags are balanced."""

    VOID = frozenset({"meta", "link", "img", "br", "line", "circle", "polyline", "polygon"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.alts: list[str] = []
        self.charts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.targets += [v for k in ("src", "href") if (v := given.get(k)) is not None]
        if tag == "img":
            self.alts.append(given.get("alt") or "")
        if chart := given.get("data-chart"):
            self.charts.append(chart)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_one_file_without_network(reported: Path) -> None:
    """No address outside; every relative link exists; every figure has its words; below 10 MB."""
    text = (reported / report.NAME).read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert len(text.encode()) < 10_000_000
    outside = [t for t in page.targets if re.match(r"(https?:)?//", t)]
    assert outside == [] and "@import" not in text and "url(" not in text
    relative = [t for t in page.targets if not t.startswith(("data:", "#"))]
    assert len(relative) >= 12
    assert [t for t in relative if not (reported / t).is_file()] == []
    assert page.alts and all(len(alt) > 30 for alt in page.alts)


def test_curves_carry_their_values_and_are_drawn_without_javascript(reported: Path) -> None:
    """The inline charts hold a line for each learning rate with its numbers."""
    text = (reported / report.NAME).read_text(encoding="utf-8")
    train, _, test = (json.loads(chart) for chart in Page(text).charts)
    assert {line["label"] for line in test["lines"]} == {
        f"lr {rate}" for rate in ("0.0001", "0.001", "0.01", "0.1", "1")
    }
    data = results.load(reported).epochs
    best = results.load(reported).trials.query("lr == 0.01")["trial_id"]
    mean = data[data["trial_id"].isin(best) & (data["epoch"] == 3)]["train_loss"].mean()
    line = next(line for line in train["lines"] if line["label"] == "lr 0.01")
    assert line["v"][-1] == pytest.approx(mean, rel=1e-4)
    assert text.count("<polyline") == 15


def test_one_line_that_runs_away_does_not_flatten_the_others(tmp_path: Path) -> None:
    """A loss of 10^6 is drawn along the upper edge, and told in full on hover."""
    made = result_folder.make(
        tmp_path / "wild",
        result_folder.GRID.replace("seed: [0, 1, 2, 3, 4, 5]", "seed: [0]"),
        loss=lambda trial: 1e6 if trial.train.lr >= 1 else result_folder.bowl(trial),
    )
    data = curves.curves_data(results.load(made))
    assert data is not None
    chart = svg_curves.learning_curves(data)
    heights = [float(y) for y in re.findall(r'class="y">([\d.e+]+)<', str(chart.panels[0]))]
    assert 1 < max(heights) < 10
    lines = json.loads(Page(str(chart.panels[0])).charts[0])["lines"]
    assert max(line["v"][-1] for line in lines) > 9e5
    drawn = re.findall(r"<polyline points=\"([^\"]+)", str(chart.panels[0]))
    assert all(float(y) > 0 for line in drawn for y in re.findall(r",([-\d.]+)", line))


def test_the_first_panels_are_those_of_all(tmp_path: Path) -> None:
    """A page that shows one model's curves of many averages those alone, to the same panels."""
    text = result_folder.GRID.replace("lr: [", "depth: [1, 2, 3], lr: [")
    found = results.load(result_folder.make(tmp_path / "deep", text))
    whole = curves.curves_data(found)
    assert whole is not None
    expected = svg_curves.learning_curves(whole, 3)
    chart = svg_curves.of_grid(found, 3)
    assert chart == expected and chart.left_out == 2 and len(chart.panels) == 3
    assert svg_curves.of_grid(found) == svg_curves.learning_curves(whole)


def test_the_first_page_has_findings_and_limits(reported: Path) -> None:
    """The lowest setting with its interval, S with its range, who diverged, what is unknown."""
    text = (reported / report.NAME).read_text(encoding="utf-8")
    first = text[text.index('<section id="conclusions">') : text.index('<section id="lr">')]
    assert first.index('class="verdict"') < first.index("What this cannot tell you")
    for part in (
        "Of 5 settings, learning rate 0.01 has the lowest mean validation loss",
        "95 % interval", "In test loss it is better than", "[0.0001, 1]",
        "Diverged: learning rate 1 (6 seeds)", "Scale laptop", "not MNIST",
        "What this cannot tell you",
    ):  # fmt: skip
        assert part in first, part
    assert "ends at a higher test loss than" not in first  # pairs are in a table of their own
    assert text.count("<td>yes</td>") >= 4 and "10 pairs of settings, seed by seed" in text


def test_claims_stand_before_the_findings(own_copy: Path) -> None:
    """A claim of the sweep file with its verdict, and that it came after the run."""
    file = own_copy / "sweep.yaml"
    claim = (
        "claims:\n- {id: slow, says: 0.0001 ends highest, metric: test_loss, of: {lr: 0.0001}, "
        "is: lowest}\n"
    )
    written = file.read_text(encoding="utf-8")
    assert "claims: []\n" in written
    file.write_text(written.replace("claims: []\n", claim), encoding="utf-8")
    text = report.write(results.load(own_copy), []).read_text(encoding="utf-8")
    assert text.index("<h2>Claims</h2>") < text.index("<h2>Findings</h2>")
    assert "refuted (added after the run)" in text


def test_one_seed_gives_no_interval_and_no_claim(tmp_path: Path) -> None:
    """The most common first run must not promise anything."""
    text = result_folder.GRID.replace("[0, 1, 2, 3, 4, 5]", "[0]")
    made = result_folder.make(tmp_path / "one", text)
    page = report.draw_and_write(made)[-1].read_text()
    first = page[page.index('<section id="conclusions">') : page.index('<section id="lr">')]
    assert "95 % interval" not in first and "--seeds 6" in first
    assert 'id="pairs"' not in page


def test_an_unfinished_sweep_has_a_report_that_says_so(tmp_path: Path) -> None:
    """A report is most wanted while a sweep runs; nothing in it may look complete."""
    made = result_folder.make(tmp_path / "part", until=7)
    report.draw_and_write(made)
    text = (made / report.NAME).read_text()
    assert "PARTIAL" in text and "23 trials have no end yet" in text
    nothing = result_folder.make(tmp_path / "none", until=0)
    report.draw_and_write(nothing)
    assert "No trial has come to its end yet" in (nothing / report.NAME).read_text()


def test_states_reasons_budget_and_provenance_are_there(reported: Path) -> None:
    """Each trial is accounted for, and the command to run it again is on the page."""
    text = (reported / report.NAME).read_text()
    assert text.count("loss not finite at epoch 1") == 6
    assert "24 finished" in text and "6 diverged" in text
    assert "<td>90</td>" in text  # epochs, planned
    assert "python -m vitbench.sweep made.yaml" in text and "0" * 64 in text


@pytest.mark.parametrize(
    ("limit", "row"), [("models", "models (limit)"), ("epochs", "epochs (limit)")]
)
def test_a_limit_of_the_sweep_file_is_on_the_page(reported: Path, limit: str, row: str) -> None:
    """Each key of `budget:` that was set has its line beside what was used."""
    opened = results.load(reported)
    assert limit in Budget.model_fields
    opened.sweep["budget"] = {limit: 7}
    assert (row, "7", "see above") in report._budget(opened)


def test_titles_name_a_users_folder_and_no_scale_that_nobody_chose(reported: Path) -> None:
    """A file without scales has none, and a folder of images has a name of its own."""
    opened = results.load(reported)
    assert " scale, " in opened.subtitle
    opened.environment.update(dataset="photos", scales=[])
    opened.sweep["dataset"]["name"] = "folder"
    assert opened.subtitle.startswith("photos, ") and " scale" not in opened.subtitle
    assert summary.as_json(opened)["scale"] is None


def test_errors_with_markup_are_shown_as_text(tmp_path: Path) -> None:
    """A cause of a crash may hold anything; it must not become part of the page."""
    made = result_folder.make(tmp_path / "markup", until=1)
    with (made / "ledger.jsonl").open("a") as ledger:
        trial = results.load(made).trials["trial_id"].iloc[1]
        line = {"kind": "outcome", "time_s": 2e9, "trial_id": trial, "status": "crashed"}
        ledger.write(json.dumps({**line, "error": "<script>alert(1)</script>"}) + "\n")
    report.draw_and_write(made)
    text = (made / report.NAME).read_text()
    assert "&lt;script&gt;alert(1)" in text and "<script>alert" not in text


def test_attention_plates_are_shown_where_they_exist(tmp_path: Path) -> None:
    """They are written by another command, before or after."""
    made = result_folder.make(tmp_path / "plates", until=2)
    first = report.draw_and_write(made)
    assert 'id="attention"' not in first[-1].read_text()
    (made / "attention").mkdir()
    picture = (made / "figures" / "loss_by_lr.png").read_bytes()
    trial = results.load(made).trials.iloc[0]
    names = [f"plate_{trial['trial_id']}.png", "plate_photos.png"]
    for name in names:
        (made / "attention" / name).write_bytes(picture)
    again = report.draw_and_write(made)[-1].read_text()
    assert 'id="attention"' in again
    assert all(f'href="attention/{name}"' in again for name in names)
    assert f"Attention of learning rate {trial['lr']:g}, seed {trial['seed']}" in again


def test_the_command_line_prints_the_files(
    own_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m vitbench.analysis RESULTS` ends with the report; a wrong folder is exit 2."""
    assert __main__.main([str(own_copy)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(own_copy / "report.html")
    assert __main__.main([str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err
