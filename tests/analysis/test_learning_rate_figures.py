"""Figures and sentences on learning rates: what they show is what the tables say."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import pandas as pd

from vitbench.analysis import style
from vitbench.analysis.findings.render import sentence
from vitbench.analysis.learning_rate import figures as lr_figures
from vitbench.analysis.learning_rate import findings as lr_findings
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
                    | {
                        "val_loss": end,
                        "test_loss": end,
                        "initial_val_loss": 2.3,
                        "train_images": 100,
                    }
                )
                for epoch, value in ((1, (end + 2.3) / 2), (2, end)):
                    epochs.append({"trial_id": trial_id, "epoch": epoch, "val_loss": value})
    return Results(
        folder=Path(),
        trials=pd.DataFrame(trials),
        epochs=pd.DataFrame(epochs),
        sweep={
            "dataset": {"name": "digits"},
            "search": {
                "method": "grid",
                "space": {"lr": rates, "batch_size": list(cells), "seed": list(range(seeds))},
            },
        },
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
    again = pd.read_csv(first[-1])
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
    again = pd.read_csv(first[-1])
    second = style.save(lr_figures.draw_heat(again, "t"), again, tmp_path / "b", "f")
    assert first[0].read_bytes() == second[0].read_bytes()


def test_rates_that_tie_are_all_framed() -> None:
    """A label that diverged at every rate has as many best ones."""
    data = lr_figures.heat_data(
        results(RATES[1:4], {16: [1.0, 0.5, 0.7], 64: [math.nan] * 3}), "batch_size"
    )
    assert data is not None and list(data.loc[data["value"] == 64, "best"]) == [True] * 3
    assert len(lr_figures.draw_heat(data, "t").axes[0].patches) == 4


def test_models_with_rates_of_their_own_make_no_heat_map() -> None:
    """A mean over models at a rate that one of them alone was given is no mean of that rate."""
    found = results(RATES[:2], {16: [2.0, 1.0], 64: [2.0, 1.5]})
    trials = found.trials.assign(depth=[1, 2, 2, 1, 2, 2, 1, 2, 2, 1, 2, 2])
    found.sweep["search"]["space"]["depth"] = [1, 2]
    assert lr_figures.heat_data(dataclasses.replace(found, trials=trials), "depth") is not None
    own = trials[(trials["depth"] == 1) | (trials["lr"] == RATES[0])]
    assert lr_figures.heat_data(dataclasses.replace(found, trials=own), "batch_size") is None


def _curves(names: dict[str, list[object]], rates: list[float], looked: int) -> pd.DataFrame:
    """Learning curves of three epochs, of which validation was looked at in the last ones."""
    rows = [
        {**dict(zip(names, cell, strict=True)), "lr": lr, "epoch": epoch, "split": split}
        for cell in itertools.product(*names.values())
        for lr in rates
        for split in ("train", "val")
        for epoch in (1, 2, 3)
        if split == "train" or epoch > 3 - looked
    ]
    return pd.DataFrame(rows).assign(mean=1.0, low=0.9, high=1.1, seeds=3, diverged=0)


def test_settings_at_one_rate_share_a_panel() -> None:
    """They are what is compared; several rates are, and sizes of the data have, panels each."""
    lines = lr_figures.lines_of(_curves({"depth": [1, 2, 4]}, [1e-3], looked=3))
    assert lines.what == "setting" and list(lines.colours) == ["depth 1", "depth 2", "depth 4"]
    assert len(lines.cells) == 1 and lines.splits == ["train", "val"]
    lines = lr_figures.lines_of(_curves({"depth": [1, 2, 4]}, [1e-3, 1e-2], looked=3))
    assert lines.what == "learning rate" and len(lines.cells) == 3
    lines = lr_figures.lines_of(_curves({"train_images": [1, 2, 4]}, [1e-3], looked=3))
    assert lines.what == "learning rate" and len(lines.cells) == 3


def test_a_split_that_was_looked_at_once_has_no_curve() -> None:
    """Panels with one dot each show nothing; where all have one epoch all are there."""
    assert lr_figures.lines_of(_curves({}, [1e-3, 1e-2], looked=1)).splits == ["train"]
    one = _curves({}, [1e-3, 1e-2], looked=1).query("epoch == 3")
    assert lr_figures.lines_of(one).splits == ["train", "val"]


def test_sentences_carry_range_interval_window_edge_and_warnings() -> None:
    """S never stands without [a, b]; a lowest loss at the end of the range is called out."""
    found = results(RATES, {16: [2.0, 1.0, 0.5, 2.3, math.nan], 64: [2.0, 1.5, 0.9, 0.8, 0.4]})
    first, second, movement = map(sentence, lr_findings.findings(found))
    assert "[0.00001, 0.1]" in first and "95 % interval" in first and "decades" in first
    assert "From 0.01 on, at every rate tried some seed" in first and "WARNING" not in first
    assert "WARNING: that is the highest rate tried" in second
    assert "0.001 at batch size 16; 0.1 at batch size 64" in movement


def test_a_rate_moves_only_where_the_seeds_support_it() -> None:
    """Three seeds say where the means are lowest and claim nothing; six can claim."""
    cells = {16: [2.0, 1.0, 0.5, 2.0, 2.1], 64: [2.0, 1.5, 0.9, 0.8, 0.4]}
    for seeds, moved in ((3, False), (6, True)):
        *_, movement = lr_findings.findings(results(RATES, cells, seeds))
        assert movement.kind == "lr_movement" and movement.asserts is moved
        assert ("It moves: batch size 16 and batch size 64" in sentence(movement)) is moved


def test_an_edge_is_only_called_one_where_all_rates_above_fail() -> None:
    """One rate in the middle diverges: it is named alone, and no edge is there."""
    found = results(RATES, {16: [2.0, 1.0, 0.5, math.nan, 0.6]})
    text = sentence(lr_findings.findings(found)[0])
    assert "at 0.01, too, though not at every rate above" in text and "From" not in text


def test_nothing_learned_gives_no_s() -> None:
    """2.27 of 2.3 everywhere is not "safe over four decades"."""
    text = sentence(lr_findings.findings(results(RATES, {16: [2.27] * 5}))[0])
    assert "No sensitivity S, since nothing was learned" in text and "decades" not in text
    assert "WARNING" not in text
