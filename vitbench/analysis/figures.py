"""All figures of a results folder, drawn from its tables alone."""

from __future__ import annotations

from pathlib import Path

from vitbench.analysis import (
    alt_text,
    curves,
    lr_figures,
    pareto,
    results,
    search_figures,
    search_maps,
    speed_figures,
    style,
)


def draw_all(folder: Path, target: float | None = None) -> list[Path]:
    """Draw every figure that the tables support into `<folder>/figures`; returns the files.

    Args:
        folder: the results folder.
        target: validation accuracy to time the arms by; the sweep's own if left out.
    """
    found = results.load(folder, target)
    out = folder / "figures"
    written: list[Path] = []
    grid = found.sweep["search"]["method"] == "grid"
    if not found.epochs.empty and grid:
        data = curves.learning_curves_data(found)
        title = f"Learning curves by learning rate ({found.subtitle})"
        written += style.save(
            curves.draw_learning_curves(data, title), data, out, "learning_curves"
        )
    if grid and found.trials["lr"].nunique() > 1 and found.trials["train_loss"].notna().any():
        data = curves.loss_by_lr_data(found)
        title = f"Loss against learning rate ({found.subtitle})"
        written += style.save(curves.draw_loss_by_lr(data, title), data, out, "loss_by_lr")
    front = pareto.pareto_data(found)
    if front is not None and not front.empty:
        title = f"Pareto front of the search ({found.subtitle}, {len(front)} suggestions)"
        written += style.save(pareto.draw_pareto(front, title), front, out, "pareto_front")
    data = lr_figures.sensitivity_data(found)
    if not data.empty:
        title = f"Sensitivity to the learning rate ({found.subtitle})"
        written += style.save(lr_figures.draw_sensitivity(data, title), data, out, "lr_sensitivity")
    for setting in lr_figures.heat_settings(found):
        data = lr_figures.heat_data(found, setting)
        if data.empty:
            continue
        title = f"Loss by learning rate and {setting.replace('_', ' ')} ({found.subtitle})"
        written += style.save(lr_figures.draw_heat(data, title), data, out, f"heat_lr_{setting}")
    return written + _search(found, out) + _speed(found, out)


def _search(found: results.Results, out: Path) -> list[Path]:
    """Importance of the settings and losses by pairs of them; of a search also its course."""
    drawn = [
        ("importance", search_figures.importance_data, search_figures.draw_importance),
        ("interactions", search_maps.interactions_data, search_maps.draw_interactions),
    ]
    if found.sweep["search"]["method"] != "grid":
        drawn += [
            ("learning_curves", search_figures.curves_data, search_figures.draw_curves),
            ("best_so_far", search_figures.best_so_far_data, search_figures.draw_best_so_far),
            ("parallel_coordinates", search_maps.parallel_data, search_maps.draw_parallel),
            ("search_slices", search_figures.slices_data, search_figures.draw_slices),
            ("best_of_k", search_figures.best_of_k_data, search_figures.draw_best_of_k),
        ]
        if found.sweep["search"]["scheduler"] == "asha":
            drawn.append(("rung_correlation", search_figures.rung_data, search_figures.draw_rungs))
    written: list[Path] = []
    for name, data_of, draw in drawn:
        data = data_of(found)
        if len(data) >= 2:
            title = f"{alt_text.heading(name)} ({found.subtitle})"
            written += style.save(draw(data, title), data, out, name)
    return written


def _speed(found: results.Results, out: Path) -> list[Path]:
    """Epochs to the stated accuracy; what an earlier target drew goes."""
    written: list[Path] = []
    for name, data, draw in (
        ("time_to_target", speed_figures.target_data(found), speed_figures.draw_target),
        ("performance_profile", speed_figures.profile_data(found), speed_figures.draw_profile),
    ):
        if data.empty:
            for old in out.glob(f"{name}.*"):
                old.unlink()
            continue
        title = f"{alt_text.heading(name)} {found.target:g} ({found.subtitle})"
        written += style.save(draw(data, title), data, out, name)
    return written
