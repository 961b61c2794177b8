"""vitbench compare: what differs, pairs by seed, one page; bad folders are refused."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import result_folder
from json_schema import matches
from scipy import stats

from vitbench.analysis import results
from vitbench.analysis.compare import numbers as comparison
from vitbench.analysis.compare import page as compare_page
from vitbench.analysis.compare.figures import rates_data
from vitbench.analysis.compare.findings import (
    ONE_SETTING,
    ComparisonJson,
    FolderJson,
    changed_settings,
    findings,
    limits,
    other_images,
)
from vitbench.analysis.compare.page import claim_text, shown
from vitbench.analysis.findings.render import sentence
from vitbench.commands import compare
from vitbench.plan import TrialConfig

DEEP = result_folder.GRID.replace("depth: 1", "depth: 2")
NOISE = np.random.default_rng(7).normal(0, 0.01, size=(6, 5))
RATES = (0.0001, 0.001, 0.01, 0.1, 1.0)


def shifted(trial: TrialConfig) -> float:
    """The bowl with noise, lower by 0.05 but at 0.1, where nothing differs but the noise."""
    noise = NOISE[trial.train.seed, RATES.index(trial.train.lr)]
    shift = 0.0 if trial.train.lr == 0.1 else 0.05
    return result_folder.bowl(trial) - shift + noise


def limits_of(found: comparison.Comparison) -> str:
    return " ".join(map(sentence, limits(found)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("compare")
    one = result_folder.make(root / "one")
    return one, result_folder.make(root / "two", DEEP, loss=shifted)


def test_pairs_are_the_same_setting_and_seed(folders: tuple[Path, Path]) -> None:
    """Differences, intervals and p follow from the ledgers' own numbers; the shift is found."""
    found = comparison.compare(folders)
    rows = found.paired.set_index("setting")
    assert set(rows.index) == {"lr 0.0001", "lr 0.001", "lr 0.01", "lr 0.1", "lr 1"}
    assert list(rows.index) == ["lr 0.0001", "lr 0.001", "lr 0.01", "lr 0.1", "lr 1"]  # as numbers
    assert not rows.loc["lr 0.1", "identical"] and rows.loc["lr 1", "identical"]
    assert rows.loc["lr 1", "difference"] == 0  # diverged on both sides: as before training
    frames = [pd.read_parquet(folder / "trials.parquet") for folder in folders]
    a, b = (f[f["lr"] == 0.01].set_index("seed")["test_loss"].sort_index() for f in frames)
    d = (b - a).to_numpy(dtype=float)
    low, high = stats.t.interval(0.95, 5, d.mean(), stats.sem(d))
    row = rows.loc["lr 0.01"]
    assert row["difference"] == pytest.approx(d.mean())
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert row["p"] == row["p_adjusted"] == pytest.approx(2 / 64) and row["claim"] == "less"
    assert rows.loc["lr 0.1", "claim"] == "none"
    assert "lower in 3, higher in 0" in " ".join(shown(found))
    assert "model.depth (A: 1, B: 2)" in shown(found)[0]


def test_a_seed_that_diverged_counts_with_the_loss_before_training(tmp_path: Path) -> None:
    """The seeds that failed are the worst: five better ones do not outweigh the sixth."""

    def loss(trial: TrialConfig) -> float:
        return math.nan if trial.train.seed == 5 else result_folder.bowl(trial) - 0.05

    one = result_folder.make(tmp_path / "one", loss=lambda t: result_folder.bowl(t) + 0.0)
    found = comparison.compare([one, result_folder.make(tmp_path / "two", DEEP, loss=loss)])
    row = found.paired.set_index("setting").loc["lr 0.01"]
    assert (row["pairs"], row["claim"]) == (6, "none") and row["difference"] > 0.2
    assert "Diverged in B: learning rate 0.01 (1 of 6)" in " ".join(shown(found))


def test_curves_of_a_comparison_are_not_those_of_the_survivors(tmp_path: Path) -> None:
    """One seed of six diverged: the mean curve holds the loss before training for it."""

    def loss(trial: TrialConfig) -> float:
        return math.nan if trial.train.seed == 5 else result_folder.bowl(trial)

    one = result_folder.make(tmp_path / "one")
    found = comparison.compare([one, result_folder.make(tmp_path / "two", DEEP, loss=loss)])
    curves = found.curves.query("panel == 'lr 0.01' and split == 'test' and epoch == 3")
    mean = curves.set_index("folder")["mean"]
    assert mean["B"] - mean["A"] == pytest.approx((2.3 - mean["A"]) / 6, rel=0.05)


def test_losses_of_different_labels_are_not_compared(tmp_path: Path) -> None:
    """Labels differ in how hard they are: no best setting, no pair across labels."""
    text = result_folder.GRID.replace("seed: [0", "label: ['3', '7'], seed: [0")
    one = result_folder.make(tmp_path / "one", text)
    three = result_folder.GRID.replace("epochs: 3,", "epochs: 3, label: '3',")
    found = comparison.compare([one, result_folder.make(tmp_path / "two", three)])
    assert found.sides[0].best is None
    assert set(found.paired["setting"]) == {
        f"lr {lr:g}, label 3" for lr in RATES
    }  # never label 7, never BEST
    assert "different labels" in limits_of(found)
    seven = result_folder.GRID.replace("epochs: 3,", "epochs: 3, label: '7',")
    other = result_folder.make(tmp_path / "three", seven)
    assert comparison.compare([tmp_path / "two", other]).paired.empty


def test_the_lowest_of_a_folder_is_no_lone_survivor(tmp_path: Path) -> None:
    """A rate with one seed of six that has an end is not the folder's lowest, however low."""
    one = result_folder.make(tmp_path / "one", until=7)  # six at 0.0001, one better at 0.001
    found = comparison.compare([one, result_folder.make(tmp_path / "two", DEEP)])
    assert [side.best for side in found.sides] == ["lr 0.0001", "lr 0.01"]


def test_two_seeds_in_common_give_no_claim_and_no_interval(tmp_path: Path) -> None:
    """Six seeds against two: only the two are pairs."""
    one = result_folder.make(tmp_path / "one")
    text = DEEP.replace("[0, 1, 2, 3, 4, 5]", "[4, 5]")
    found = comparison.compare([one, result_folder.make(tmp_path / "two", text, loss=shifted)])
    assert set(found.paired["pairs"]) == {2}
    assert found.paired[["low", "high"]].isna().all(axis=None)
    assert set(found.paired["claim"]) == {"none"}
    assert "no difference is claimed" in " ".join(shown(found))
    assert "--seeds 6" in limits_of(found)
    few = result_folder.make(tmp_path / "three", text.replace("depth: 2", "depth: 1"))
    without = comparison.compare([few, tmp_path / "two"])  # no interval in either
    assert "Lowest mean validation loss of A" in " ".join(shown(without))


def test_what_differs_names_settings_code_and_data(tmp_path: Path) -> None:
    """A commit, a checksum and two settings were changed: all four are told, and warned of."""
    one = result_folder.make(tmp_path / "one")
    two = result_folder.make(tmp_path / "two", DEEP.replace("batch_size: 64", "batch_size: 32"))
    environment = json.loads((two / "environment.json").read_text())
    environment |= {"git_commit": "f" * 40, "data_checksum": "1" * 64}
    (two / "environment.json").write_text(json.dumps(environment))
    found = comparison.compare([one, two])
    told = {(row["kind"], row["what"]) for row in found.differences.to_dict("records")}
    assert told == {
        ("setting", "model.depth"),
        ("setting", "train.batch_size"),
        ("code", "commit"),
        ("data", "checksum"),
    }
    limits = limits_of(found)
    assert "images are not the same" in limits and "2 settings differ" in limits
    page = compare_page.write(found, tmp_path / "page.html").read_text()
    assert "111111111111…" in page and "1" * 64 not in page, "no checksum makes the table scroll"
    assert "code or its packages differ" in limits
    (flag,) = other_images(found)
    assert "The images differ though the data set has one name" in sentence(flag)


def test_what_differs_is_named_shortly(tmp_path: Path) -> None:
    """A sentence and a table have no room for a value of a thousand letters; the CSV has it."""
    one = result_folder.make(tmp_path / "one")
    widths = ", ".join(str(2 * n) for n in range(4, 304))
    text = result_folder.GRID.replace("width: 8, ", "").replace("[0, 1, 2, 3, 4, 5]", "[0]")
    text = text.replace("space: {lr", f"space: {{width: [{widths}], lr")
    text = text.replace("[0.0001, 0.001, 0.01, 0.1, 1.0]", "[0.01]")
    found = comparison.compare([one, result_folder.make(tmp_path / "two", text)])
    assert max(map(len, shown(found))) < 600
    page = compare_page.write(found, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "596, 598, 600" not in page[page.index("<h2>What differs") : page.index("<h2>Outcomes")]
    table = (tmp_path / "page_files" / "differences.csv").read_text(encoding="utf-8")
    assert "602, 604, 606" in table


def test_a_setting_that_came_later_does_not_differ(tmp_path: Path) -> None:
    """Results of a version without it had what is its default today."""
    one, two = result_folder.make(tmp_path / "one"), result_folder.make(tmp_path / "two")
    text = (two / "sweep.yaml").read_text()
    assert "  patience: null\n" in text
    (two / "sweep.yaml").write_text(text.replace("  patience: null\n", ""))
    assert comparison.compare([one, two]).differences.empty


def test_an_axis_of_one_value_is_a_setting(tmp_path: Path) -> None:
    """`depth: [2]` in the search space differs from `model.depth: 1`; other rates do not count."""
    one = result_folder.make(tmp_path / "one")
    text = result_folder.GRID.replace("0.1, 1.0], ", "0.1], depth: [2], ")
    found = comparison.compare([one, result_folder.make(tmp_path / "two", text)])
    told = found.differences.set_index("what")
    assert (told.loc["model.depth", "A"], told.loc["model.depth", "B"]) == ("1", "2")
    assert told.loc["train.lr", "B"] == "[0.0001, 0.001, 0.01, 0.1]"
    assert changed_settings(found) == ["model.depth"]


def test_without_a_common_setting_the_best_are_compared(tmp_path: Path) -> None:
    """Random searches share no setting; the best of each, on the same seeds, are still a pair."""
    one = result_folder.make(tmp_path / "one")
    text = result_folder.GRID.replace("[0.0001, 0.001, 0.01, 0.1, 1.0]", "[0.002, 0.02]")
    found = comparison.compare([one, result_folder.make(tmp_path / "two", text)])
    assert list(found.paired["setting"]) == [comparison.BEST]
    # Told apart, but both were picked on these seeds: no claim.
    row = found.paired.iloc[0]
    assert row["pairs"] == 6 and row["p_adjusted"] < 0.05 and row["claim"] == "none"
    assert not any(told.asserts for told in findings(found))
    best = found.curves[found.curves["panel"] == comparison.BEST]
    assert set(best["setting"]) == {"lr 0.01", "lr 0.02"}
    assert "no setting and seed in common" in " ".join(shown(found))
    assert "flatters both" in limits_of(found)


def test_the_page_is_one_file(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No address outside, every link is there, the pictures are inside."""
    out = tmp_path / "new" / "page.html"
    assert compare.main([*map(str, folders), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "lr 0.01" in printed and "lower" in printed and str(out) in printed
    text = out.read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href)=\"(?:https?:)?//", text) == []
    links = [t for t in re.findall(r"href=\"([^\"]+)\"", text) if not t.startswith(("#", "data:"))]
    assert len(links) >= 8 and all((out.parent / link).is_file() for link in links)
    assert (
        len(re.findall(r"<img src=\"data:image/png;base64,[^\"]+\" alt=\"[^\"]{40,}\"", text)) == 3
    )


def test_json_is_one_object_of_the_schema(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every key and type, each claimed difference with the table's numbers, and no page."""
    monkeypatch.chdir(tmp_path)
    assert compare.main([*map(str, folders), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert matches(shown, ComparisonJson) and list(tmp_path.iterdir()) == []
    assert [one["folder"] for one in shown["folders"]] == [str(folder) for folder in folders]
    claimed = {f["arms"][0]: f for f in shown["findings"] if f["kind"] == ONE_SETTING}
    paired = comparison.compare(folders).paired
    rows = paired[paired["claim"] == "less"]
    assert set(claimed) == {f"A: {setting}" for setting in rows["setting"]} and len(rows) == 3
    for row in rows.to_dict("records"):
        told = claimed[f"A: {row['setting']}"]
        assert told["asserts"] and told["family"] and told["n"] == row["pairs"]
        for key, column in {"effect": "difference", "p": "p", "p_adjusted": "p_adjusted"}.items():
            assert told[key] == pytest.approx(row[column])
        assert "of B is lower than that of A" in told["text"]
    (count,) = (f for f in shown["findings"] if f["kind"] == "folder_pairs")
    assert count["asserts"] and count["p_adjusted"] == max(rows["p_adjusted"])
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    for schema in (ComparisonJson, FolderJson):
        assert all(f"| `{key}` |" in page for key in schema.__annotations__)


def test_merged_curves_are_means_over_seeds(folders: tuple[Path, Path]) -> None:
    """A point of the figure against the folder's own table."""
    found = comparison.compare(folders)
    side = results.load(folders[1])
    ids = side.trials.loc[side.trials["lr"] == 0.001, "trial_id"]
    rows = side.epochs[side.epochs["trial_id"].isin(ids) & (side.epochs["epoch"] == 2)]
    row = found.curves.query(
        "folder == 'B' and panel == 'lr 0.001' and split == 'test' and epoch == 2"
    )
    assert row["mean"].item() == pytest.approx(rows["test_loss"].mean())
    assert row["low"].item() == pytest.approx(rows["test_loss"].min())
    assert set(found.curves.query("panel == 'lr 1'")["mean"]) == {2.3}  # diverged at once


def test_loss_by_rate_is_overlaid_where_both_folders_vary_it(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """A point against the folder's own table; no figure where one folder has a single rate."""
    data = rates_data(comparison.compare(folders))
    assert data is not None and len(data) == 10
    trials = results.load(folders[1]).trials.query("lr == 0.001")
    row = data.query("folder == 'B' and lr == 0.001")
    assert row["mean"].item() == pytest.approx(trials["val_loss"].mean())
    text = result_folder.GRID.replace("[0.0001, 0.001, 0.01, 0.1, 1.0]", "[0.01]")
    one = result_folder.make(tmp_path / "one", text)
    data = rates_data(comparison.compare([folders[0], one]))
    assert data is not None and data.empty


def test_a_partial_sweep_is_labelled(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the page, in the terminal and in the limits."""
    part = result_folder.make(tmp_path / "part", DEEP, until=13)
    out = tmp_path / "compare.html"
    assert compare.main([str(folders[0]), str(part), "--out", str(tmp_path)]) == 0
    assert "PARTIAL" in capsys.readouterr().out
    text = out.read_text()
    assert "B is partial" in text and "B: not complete" in text


def test_folders_that_cannot_be_compared_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear message, exit code 2, and no page."""
    one = str(folders[0])
    nothing = str(result_folder.make(tmp_path / "nothing", until=0))
    label = result_folder.GRID.replace("epochs: 3,", "epochs: 3, label: '3',")
    labelled = str(result_folder.make(tmp_path / "label", label))
    cases = {
        "needs 2 to 26": [one],
        "stands twice": [one, f"{one}/../one"],
        "holds no results": [one, str(tmp_path)],
        "no trial has come to its end": [one, nothing],
        "models of one label against": [one, labelled],
    }
    out = tmp_path / "out.html"
    for message, arguments in cases.items():
        assert compare.main([*arguments, "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
    file = tmp_path / "file"
    file.write_text("")
    assert compare.main([one, str(folders[1]), "--out", str(file / "x.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_was_copied_differs_in_nothing(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """Equal runs: no difference is listed, and none is claimed."""
    copy = shutil.copytree(folders[0], tmp_path / "copy")
    found = comparison.compare([folders[0], copy])
    assert found.differences.empty
    assert (found.paired["difference"] == 0).all() and set(found.paired["claim"]) == {"none"}
    rows = found.paired.to_dict("records")
    assert {claim_text(row) for row in rows} == {"identical in every seed"}
    assert "All are identical in every seed." in " ".join(shown(found))
    assert other_images(found) == []
