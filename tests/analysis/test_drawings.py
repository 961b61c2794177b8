"""Every figure redraws from its own CSV alone, to the last pixel, and has its words."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import result_folder
from matplotlib.figure import Figure
from PIL import Image

from vitbench.analysis import __main__, figures, results, style
from vitbench.commands import compare
from vitbench.config import Dataset, Model, Train
from vitbench.errors import UserError
from vitbench.plan import TrialConfig
from vitbench.records import tables

GRID = """
name: made
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 3, batch_size: 64, train_images: 300, val_images: 100, test_images: 50}
target_accuracy: 0.4
search:
  method: grid
  space:
    lr: [0.0001, 0.001, 0.01, 0.1, 1.0]
    label: ["3", "7", null]
    depth: [1, 2]
    optimizer: [radam, sgd]
    seed: [0, 1, 2]
"""
SEARCH = """
name: searched
dataset: {name: digits, image_size: 8}
model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}
train: {epochs: 9, batch_size: 64, train_images: 300, val_images: 100, test_images: 50}
target_accuracy: 0.4
search:
  method: random
  suggestions: 24
  scheduler: asha
  objectives: [val_loss]
  space:
    lr: {low: 0.0001, high: 1.0, log: true}
    depth: [1, 2, 3]
    label: ["3", "7", null]
    dropout: [0.0, 0.5, 1.0e-1]
"""


def pixels(png: Path) -> np.ndarray:
    return np.asarray(Image.open(png).convert("RGBA"))


def drawn(figure: Figure, path: Path) -> np.ndarray:
    with matplotlib.rc_context(style.RC):
        figure.savefig(path)
    return pixels(path)


def check_all(folder: Path, scratch: Path, **titles: str) -> set[str]:
    """Redraw each CSV of a folder of figures and compare it with the PNG; returns the names."""
    names = set()
    for csv in sorted(folder.glob("*.csv")):
        png = csv.with_suffix(".png")
        if not png.is_file():
            continue  # a table
        again = drawn(figures.redraw(csv, titles.get(csv.stem)), scratch / png.name)
        assert np.array_equal(again, pixels(png)), csv.stem
        names.add(csv.stem)
    return names


def test_every_figure_of_a_grid_redraws(tmp_path: Path) -> None:
    """Labels that look like numbers, a label that is missing, infinite times, diverged trials."""

    def loss(trial: TrialConfig) -> float:
        if trial.train.lr == 0.1 and trial.train.seed == 1:
            return math.nan
        better = 0.1 * trial.model.depth + 0.05 * (trial.train.label == "7")
        return result_folder.bowl(trial) + better + 0.02 * (trial.train.optimizer == "sgd")

    folder = result_folder.make(tmp_path / "grid", GRID, loss=loss)
    drawn_now = figures.draw_all(results.load(folder))
    names = check_all(folder / "figures", tmp_path)
    assert names == {
        "learning_curves", "loss_by_lr", "lr_sensitivity", "heat_lr_label", "heat_lr_depth",
        "heat_lr_optimizer", "importance", "interactions",
        "time_to_target", "performance_profile",
    }  # fmt: skip
    assert {one.spec.name for one in drawn_now} == names
    for one in drawn_now:
        assert all(path.is_file() for path in one.paths) and len(one.paths) == 2
        again = one.spec.alt(figures.read(one.paths[-1]))
        assert again == one.spec.alt(one.data) and len(again) > len(one.spec.heading) + 20


def test_settings_beside_each_other_lead_where_no_rate_varies(tmp_path: Path) -> None:
    """A row per setting in the order of their means, each with all of its seeds; it redraws."""
    text = result_folder.GRID.replace("lr: [0.0001, 0.001, 0.01, 0.1, 1.0]", "depth: [2, 1, 4]")
    text = text.replace("epochs: 3,", "epochs: 3, lr: 0.01,")
    made = result_folder.make(
        tmp_path / "grid", text, lambda trial: result_folder.bowl(trial) + 0.1 * trial.model.depth
    )
    opened = results.load(made)
    (drawn,) = figures.draw_main(opened, tmp_path / "main")
    assert drawn.spec.name == "settings"
    assert list(drawn.data["arm"].unique()) == ["depth 1", "depth 2", "depth 4"]
    means = opened.trials.groupby("depth")["test_loss"].mean()
    assert np.allclose(drawn.data["mean"].unique(), means.sort_values())
    assert len(drawn.data) == 18
    again = drawn.spec.draw(figures.read(drawn.paths[-1]), "title").axes[0]
    assert [text.get_text() for text in again.get_yticklabels()] == [
        "depth 1",
        "depth 2",
        "depth 4",
    ]


def test_every_figure_of_a_search_redraws(tmp_path: Path) -> None:
    """Diverged and stopped trials, choices of text and of numbers, and a Pareto front."""
    rng = np.random.default_rng(0)
    trials = [
        TrialConfig(
            dataset=Dataset(name="digits", image_size=8),
            model=Model(
                patch_grid=2, depth=1 + n % 3, heads=2, width=8, mlp=8, dropout=(0.0, 0.5)[n % 2]
            ),
            train=Train(
                epochs=9,
                lr=float(10 ** rng.uniform(-4, 0)),
                label=("3", "7", None)[n // 3 % 3],
                train_images=300,
            ),
        )
        for n in range(24)
    ]
    last = {trials[5].trial_id: math.nan, trials[6].trial_id: 1e6}

    def loss(trial: TrialConfig) -> float:
        usual = 0.2 + abs(math.log10(trial.train.lr) + 2) + 0.1 * trial.model.depth
        return last.get(trial.trial_id, usual)

    folder = result_folder.make(tmp_path / "search", SEARCH, loss=loss, trials=trials)
    sweep = folder / "sweep.yaml"
    objectives = "objectives:\n  - val_loss\n  - parameters"
    sweep.write_text(sweep.read_text().replace("objectives:\n  - val_loss", objectives))
    tables.write_suggestions(
        folder,
        [
            {
                "number": n,
                "stack_id": trial.trial_id,
                "state": "COMPLETE",
                "reason": None,
                "val_loss": loss(trial) if trial.trial_id not in last else 2.3,
                "parameters": 1000 * trial.model.depth,
                "pareto": n % 5 == 0,
            }
            for n, trial in enumerate(trials)
        ],
    )
    figures.draw_all(results.load(folder))
    assert check_all(folder / "figures", tmp_path) == {
        "learning_curves", "best_so_far", "parallel_coordinates", "search_slices", "best_of_k",
        "rung_correlation", "pareto_front", "importance", "interactions", "time_to_target",
    }  # fmt: skip


def test_an_exact_grid_has_its_importance_and_it_redraws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shares without an interval: a column that is empty throughout."""
    text = result_folder.GRID.replace("seed:", "depth: [1, 2], seed:")
    folder = result_folder.make(tmp_path / "exact", text)
    only = tuple(spec for spec in figures.FIGURES if spec.name == "importance")
    monkeypatch.setattr(figures, "FIGURES", only)
    figures.draw_all(results.load(folder))
    assert check_all(folder / "figures", tmp_path) == {"importance"}


def test_figures_of_a_comparison_redraw(tmp_path: Path) -> None:
    """Their titles name the folders, which a CSV does not; all else is in it."""
    one = result_folder.make(tmp_path / "one")
    two = result_folder.make(tmp_path / "two", result_folder.GRID.replace("depth: 1", "depth: 2"))
    assert compare.main([str(one), str(two), "--out", str(tmp_path / "page.html")]) == 0
    names = "A: made/one, B: made/two"
    found = check_all(
        tmp_path / "page_files",
        tmp_path,
        merged_loss_by_lr=f"Loss by learning rate\n{names}",
        merged_curves=f"Learning curves\n{names}",
        paired_differences=f"Paired differences in test loss\n{names}",
    )
    assert found == {"merged_curves", "merged_loss_by_lr", "paired_differences"}


def test_numbers_that_were_changed_change_the_picture(own_copy: Path, tmp_path: Path) -> None:
    """The picture is drawn from the CSV, not from the tables beside it."""
    csv = own_copy / "figures" / "loss_by_lr.csv"
    data = pd.read_csv(csv)
    data.assign(val_loss=data["val_loss"] * 1.5).to_csv(csv, index=False)
    again = drawn(figures.redraw(csv), tmp_path / "again.png")
    assert not np.array_equal(again, pixels(csv.with_suffix(".png")))


def test_the_command_redraws_one_figure(
    pdfs: None, own_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m vitbench.analysis X.csv` writes the PNG and PDF beside it again."""
    csv = own_copy / "figures" / "loss_by_lr.csv"
    before, text = pixels(csv.with_suffix(".png")), csv.read_bytes()
    csv.with_suffix(".png").unlink()
    csv.with_suffix(".pdf").unlink(missing_ok=True)
    assert __main__.main([str(csv)]) == 0
    assert np.array_equal(pixels(csv.with_suffix(".png")), before)
    assert csv.with_suffix(".pdf").read_bytes()[:5] == b"%PDF-"
    assert csv.read_bytes() == text
    assert capsys.readouterr().out.split() == [
        str(csv.with_suffix(suffix)) for suffix in (".png", ".pdf")
    ]
    other = own_copy / "trials.csv"
    assert __main__.main([str(other)]) == 2
    assert "is not the CSV of a figure" in capsys.readouterr().err
    with pytest.raises(UserError, match="cannot be read"):
        figures.redraw(tmp_path / "missing.csv")


def test_a_figure_that_the_results_no_longer_support_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later look with another target must not leave the picture of the earlier one."""
    folder = result_folder.make(tmp_path / "grid")
    speed = tuple(spec for spec in figures.FIGURES if spec.section == "speed")
    monkeypatch.setattr(figures, "FIGURES", speed)  # drawing the others proves nothing here
    figures.draw_all(results.load(folder, target=0.4))
    assert (folder / "figures" / "time_to_target.png").is_file()
    figures.draw_all(results.load(folder))
    assert not list((folder / "figures").glob("time_to_target.*"))
    assert results.load(folder).target is None
