"""Figures and sentences on learning rates: what they show is what the tables say."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from vitbench.analysis import style
from vitbench.analysis.learning_rate import figures as lr_figures
from vitbench.analysis.learning_rate import sensitivity as lr_sensitivity
from vitbench.analysis.learning_rate import words as lr_words
from vitbench.analysis.results import Results

RATES = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]


def results(rates: list[float], cells: dict[int, list[float]], seeds: int = 3) -> Results:
    """A grid over batch size and learning rate with stated losses, two epochs a trial."""
    shape = {"label": None, "width": 8, "depth": 1, "heads": 1, "patch_grid": 2}
    trials, epochs = [], []
    for batch, losses in cells.items():
        for lr, loss in zip(rates, losses, strict=True):
            for seed in range(seeds):
                trial_id = f"{batch}-{lr}-{seed}"
                end = loss + 0.001 * seed
                gone = math.isnan(loss)
                trials.append(
                    {**shape, "trial_id": trial_id, "batch_size": batch, "lr": lr, "seed": seed}
                    | {"status": "diverged" if gone else "finished", "optimizer": "radam"}
                    | {"val_loss": end, "initial_val_loss": 2.3, "train_images": 100}
                )
                for epoch, value in ((1, (end + 2.3) / 2), (2, end)):
                    epochs.append({"trial_id": trial_id, "epoch": epoch, "val_loss": value})
    return Results(
        folder=Path(),
        trials=pd.DataFrame(trials),
        epochs=pd.DataFrame(epochs),
        sweep={"dataset": {"name": "digits"}, "search": {"method": "grid"}},
        environment={"scale": "laptop"},
    )


def test_the_sensitivity_figure_redraws_from_its_own_csv(tmp_path: Path) -> None:
    """Data and drawing are apart: the CSV beside the picture holds all that it shows."""
    found = results(RATES, {16: [2.0, 1.0, 0.5, 2.0, math.nan], 64: [2.0, 1.5, 0.6, 0.5, 2.0]})
    data = lr_figures.sensitivity_data(found)
    assert data is not None
    assert set(data["batch_size"]) == {16, 64} and len(data) == 10
    assert data.loc[(data.batch_size == 16) & (data.lr == 0.1), "loss"].item() == 2.3
    first = style.save(lr_figures.draw_sensitivity(data, "t"), data, tmp_path / "a", "f")
    again = pd.read_csv(first[2])
    second = style.save(lr_figures.draw_sensitivity(again, "t"), again, tmp_path / "b", "f")
    assert first[0].read_bytes() == second[0].read_bytes()


def test_three_rates_make_no_sensitivity_figure() -> None:
    """Nothing is drawn that the data do not support."""
    assert lr_figures.sensitivity_data(results(RATES[:3], {16: [2.0, 1.0, 0.5]})) is None


def test_the_heat_map_averages_seeds_and_frames_the_best(tmp_path: Path) -> None:
    """One cell per setting and rate; redrawn from its CSV it is the same picture."""
    found = results(RATES[1:4], {16: [1.0, 0.5, math.nan], 64: [1.5, 0.9, 0.4]})
    assert lr_figures.heat_data(found, "depth") is None  # does not vary
    data = lr_figures.heat_data(found, "batch_size")
    assert data is not None
    assert dict(data[data["best"]].set_index("value")["lr"]) == {16: 1e-3, 64: 1e-2}
    first = style.save(lr_figures.draw_heat(data, "t"), data, tmp_path / "a", "f")
    again = pd.read_csv(first[2])
    second = style.save(lr_figures.draw_heat(again, "t"), again, tmp_path / "b", "f")
    assert first[0].read_bytes() == second[0].read_bytes()


def test_sentences_carry_range_interval_window_edge_and_warnings() -> None:
    """S never stands without [a, b]; a best rate at the end of the range is called out."""
    found = results(RATES, {16: [2.0, 1.0, 0.5, 2.3, math.nan], 64: [2.0, 1.5, 0.9, 0.8, 0.4]})
    table = lr_sensitivity.table(found.trials, ["batch_size"])
    first, second = lr_words.sentences(table, ["batch_size"])
    assert "[1e-05, 0.1]" in first and "95 % interval" in first and "decades" in first
    assert "Between 0.001 and 0.01 lies the edge" in first and "WARNING" not in first
    assert "WARNING: that is the highest rate tried" in second
    assert "moves: 0.001 at batch size 16; 0.1 at batch size 64" in lr_words.movement(
        table, ["batch_size"]
    )


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        ([0.5, 0.4, 0.2], "holds at batch size 16 and no longer at 64"),
        ([0.5, 0.4, 2.0], "It is the worst everywhere here"),
    ],
)
def test_the_papers_claim_is_answered_in_words(second: list[float], verdict: str) -> None:
    """Where 0.003 stops being the worst and becomes the fastest."""
    found = results([3e-5, 3e-4, 3e-3], {16: [0.5, 0.3, 2.0], 64: second})
    table = lr_words.standing(found.trials, found.epochs, "batch_size")
    text = lr_words.standing_sentence(table)
    assert verdict in text
    assert "at batch size 16 it is the worst of 3 rates" in text and "slowest" in text
    assert ("fastest" in text) == (second[2] < 1)
    other = results([1e-5, 1e-4], {16: [0.5, 0.3]})
    assert lr_words.standing_sentence(lr_words.standing(other.trials, other.epochs, "lr")) == ""
