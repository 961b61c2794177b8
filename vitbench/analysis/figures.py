"""All figures of a results folder, drawn from its tables alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from vitbench.analysis import results, style
from vitbench.analysis.attention import spread as attention_spread
from vitbench.analysis.drawings import HEAT, draw_of, title_of
from vitbench.analysis.labels import figures as label_figures
from vitbench.analysis.learning_rate import curves
from vitbench.analysis.learning_rate import figures as lr_figures
from vitbench.analysis.results import Results
from vitbench.analysis.search import figures as search_figures
from vitbench.analysis.search import overview as search_maps
from vitbench.analysis.search import pareto
from vitbench.analysis.time_to_target import figures as speed_figures


def draw_all(folder: Path, target: float | None = None) -> list[Path]:
    """Draw every figure that the tables support into `<folder>/figures`; returns the files.

    Args:
        folder: the results folder.
        target: validation accuracy to time the arms by; the sweep's own if left out.
    """
    found = results.load(folder, target)
    out = folder / "figures"
    written: list[Path] = []
    for name, data in tables(found):
        draw = draw_of(name, data)
        if draw is None or data.empty:
            for old in out.glob(f"{name}.*"):  # drawn before, with a target or fewer trials
                old.unlink()
            continue
        written += style.save(draw(data, title_of(name, data, found.subtitle)), data, out, name)
    return written


def tables(found: Results) -> Iterator[tuple[str, pd.DataFrame]]:
    """The numbers of each figure by its name; empty where the results do not support it."""
    if found.sweep["search"]["method"] == "grid":
        yield from _grid(found)
    else:
        yield from _search(found)
    front = pareto.pareto_data(found)
    yield "pareto_front", pd.DataFrame() if front is None else front
    yield "lr_sensitivity", lr_figures.sensitivity_data(found)
    for setting in lr_figures.heat_settings(found):
        yield HEAT + setting, lr_figures.heat_data(found, setting)
    yield "label_difficulty", label_figures.difficulty_data(found)
    yield "label_curves", label_figures.curves_data(found)
    yield "attention_spread", attention_spread.spread_data(found)
    yield "importance", _several(search_figures.importance_data(found))
    yield "interactions", search_maps.interactions_data(found)
    yield "time_to_target", speed_figures.target_data(found)
    yield "performance_profile", speed_figures.profile_data(found)


def _grid(found: Results) -> Iterator[tuple[str, pd.DataFrame]]:
    trials = found.trials
    yield "learning_curves", curves.learning_curves_data(found)
    compared = trials["lr"].nunique() > 1 and trials["train_loss"].notna().any()
    yield "loss_by_lr", curves.loss_by_lr_data(found) if compared else pd.DataFrame()


def _search(found: Results) -> Iterator[tuple[str, pd.DataFrame]]:
    """The course of a search."""
    yield "learning_curves", _several(search_figures.curves_data(found))
    yield "best_so_far", _several(search_figures.best_so_far_data(found))
    yield "parallel_coordinates", _several(search_maps.parallel_data(found))
    yield "search_slices", _several(search_figures.slices_data(found))
    yield "best_of_k", _several(search_figures.best_of_k_data(found))
    if found.sweep["search"]["scheduler"] == "asha":
        yield "rung_correlation", _several(search_figures.rung_data(found))


def _several(data: pd.DataFrame) -> pd.DataFrame:
    """Nothing of a single row: there is no course to see in it."""
    return data if len(data) > 1 else data.iloc[:0]
