"""Figures in words, for those who cannot see them: made from the numbers that they show."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from vitbench.analysis.attention.spread import caption
from vitbench.analysis.statistics import setting
from vitbench.analysis.time_to_target.numbers import by_arm

_HEADINGS = {
    "learning_curves": "Learning curves",
    "loss_by_lr": "Loss against learning rate, each trial",
    "lr_sensitivity": "Sensitivity to the learning rate",
    "pareto_front": "Pareto front of the search",
    "best_so_far": "Best so far against epochs spent",
    "search_slices": "Loss against each setting of the search",
    "importance": "Importance of the settings",
    "best_of_k": "Expected best of k trials",
    "rung_correlation": "Early losses against final losses",
    "parallel_coordinates": "Settings of every trial",
    "interactions": "Loss by pairs of settings",
    "attention_spread": "Spread of attention against loss",
    "label_curves": "Learning curves by label",
    "label_difficulty": "Label difficulty, measure by measure",
    "time_to_target": "Epochs to validation accuracy",
    "performance_profile": "Performance profile at validation accuracy",
}


def heading(name: str) -> str:
    """What a figure is called on the page."""
    if name.startswith("heat_lr_"):
        return f"Loss by learning rate and {name.removeprefix('heat_lr_').replace('_', ' ')}"
    return _HEADINGS.get(name, name.replace("_", " ").capitalize())


def describe(name: str, data: pd.DataFrame) -> str:
    """The figure's alternative text; the heading alone where the numbers are not understood."""
    maker = _heat if name.startswith("heat_lr_") else _MAKERS.get(name)
    if maker is None or data.empty:
        return heading(name)
    return f"{heading(name)}. {maker(data)}"


def _curves(data: pd.DataFrame) -> str:
    if "split" not in data:  # of a search: a line per trial
        best = data[data["best"]]
        return (
            f"Validation loss by epoch of {data['trial_id'].nunique()} trials; the best one "
            f"reaches {best['val_loss'].min():.3g}."
        )
    last = data[(data["split"] == "test") & (data["epoch"] == data["epoch"].max())]
    means = last.groupby("lr")["mean"].mean().sort_index(ascending=False)
    ends = ", ".join(f"{lr:g}: {value:.3g}" for lr, value in list(means.items())[:12])
    return f"Test loss at epoch {int(data['epoch'].max())} by learning rate: {ends}."


def _by_lr(data: pd.DataFrame) -> str:
    means = data.groupby("lr")["val_loss"].mean().dropna()
    if means.empty:
        return "No trial has a validation loss."
    gone = int((data["status"] == "diverged").sum())
    return (
        f"{len(data)} trials at {data['lr'].nunique()} learning rates from {data['lr'].min():.3g} "
        f"to {data['lr'].max():.3g}; the mean validation loss is lowest, {means.min():.3g}, at "
        f"{means.idxmin():.3g}; {gone} diverged."
    )


def _sensitivity(data: pd.DataFrame) -> str:
    best = data.sort_values("loss").iloc[0]
    text = (
        f"Mean validation loss from {data['lr'].min():g} to {data['lr'].max():g}, lowest "
        f"({best['loss']:.3g}) at {best['lr']:g}"
    )
    if math.isfinite(best["safe_low"]):
        text += f"; safe window from {best['safe_low']:.2g} to {best['safe_high']:.2g}"
    return text + "."


def _heat(data: pd.DataFrame) -> str:
    best = data[data["best"]]
    name = str(data["setting"].iloc[0])
    cells = ", ".join(
        f"{row['lr']:g} at {setting(name, row['value'])} (loss {row['loss']:.3g})"
        for row in best.to_dict("records")
    )
    return f"Best learning rate: {cells}."


def _importance(data: pd.DataFrame) -> str:
    parts = [f"{row['setting']}: {row['share']:.0%}" for row in data.head(8).to_dict("records")]
    return f"Share of the variance of the validation loss. {', '.join(parts)}."


def _best_so_far(data: pd.DataFrame) -> str:
    best = float(data["best"].min())
    spent = int(data.loc[data["best"] == best, "epochs_spent"].min())
    return (
        f"{len(data)} suggestions; the lowest validation loss, {best:.3g}, was reached after "
        f"{spent} of {int(data['epochs_spent'].max())} epochs."
    )


def _best_of_k(data: pd.DataFrame) -> str:
    first, last = data.iloc[0], data.iloc[-1]
    return (
        f"The expected lowest loss falls from {first['expected']:.3g} with one suggestion to "
        f"{last['expected']:.3g} with {int(last['k'])}."
    )


def _rungs(data: pd.DataFrame) -> str:
    taus = data.groupby("epoch")["tau"].first()
    parts = [f"epoch {epoch}: {tau:.2f}" for epoch, tau in taus.items()]
    return f"Kendall's tau between the loss at a rung and at the end. {', '.join(parts)}."


def _slices(data: pd.DataFrame) -> str:
    best = data.sort_values("loss").iloc[0]
    names = [name for name in data.columns if name not in ("loss", "status")]
    return (
        f"{len(data)} suggestions; the lowest loss, {best['loss']:.3g}, at "
        f"{', '.join(setting(name, best[name]) for name in names)}."
    )


def _parallel(data: pd.DataFrame) -> str:
    names = [name for name in data.columns if name not in ("loss", "status")]
    few = data.sort_values("loss").head(3).to_dict("records")
    best = "; ".join(
        f"{row['loss']:.3g} with {', '.join(setting(name, row[name]) for name in names)}"
        for row in few
    )
    return f"A line through the settings of each of {len(data)} suggestions. The best: {best}."


def _interactions(data: pd.DataFrame) -> str:
    best = data.loc[data.groupby(["x", "y"], sort=False)["loss"].idxmin()].to_dict("records")
    cells = "; ".join(
        f"{setting(row['x'], row['x_label'])} and {setting(row['y'], row['y_label'])}: "
        f"{row['loss']:.3g} (n = {row['count']})"
        for row in best
    )
    return f"Cell of the lowest mean loss for each pair. {cells}."


def _pareto(data: pd.DataFrame) -> str:
    fixed = ("number", "stack_id", "pareto")
    names = [name.replace("_", " ") for name in data.columns if name not in fixed]
    return (
        f"{int(data['pareto'].sum())} of {len(data)} suggestions are beaten by no other in "
        f"{' and '.join(names)}."
    )


def _label_curves(data: pd.DataFrame) -> str:
    last = data[data["epoch"] == data["epoch"].max()]
    parts = []
    for label, part in last.groupby("label", sort=False):
        by = part.set_index("what")["mean"]
        parts.append(
            f"{label}: training loss {by['train_loss']:.3g}, information gained {by['val_rig']:.2f}"
        )
    return f"At epoch {int(data['epoch'].max())}: {'; '.join(parts)}."


def _difficulty(data: pd.DataFrame) -> str:
    parts = []
    for title, part in data.groupby("title", sort=False):
        ranked = part.drop_duplicates("label").sort_values("rank").to_dict("records")
        named = ", ".join(f"{row['label']} {row['mean']:.3g}" for row in ranked)
        parts.append(f"{title}: {named}")
    return f"From the easiest label to the hardest. {'; '.join(parts)}."


def _target(data: pd.DataFrame) -> str:
    rows = by_arm(data).head(8).to_dict("records")
    parts = [
        f"{row['arm']}: {row['epochs']:g} epochs"
        if math.isfinite(row["epochs"])
        else f"{row['arm']}: not reached by most"
        for row in rows
    ]
    return f"Median epochs to validation accuracy {data['target'].iloc[0]:g}. {', '.join(parts)}."


def _profile(data: pd.DataFrame) -> str:
    scores = data.groupby("arm", sort=False)["score"].first()
    parts = [f"{arm}: {value:.2f}" for arm, value in list(scores.items())[:8]]
    return (
        f"Score over {int(data['workloads'].iloc[0])} workloads, 1 being the fastest on all. "
        f"{', '.join(parts)}."
    )


_MAKERS: dict[str, Callable[[pd.DataFrame], str]] = {
    "learning_curves": _curves,
    "loss_by_lr": _by_lr,
    "lr_sensitivity": _sensitivity,
    "importance": _importance,
    "best_so_far": _best_so_far,
    "best_of_k": _best_of_k,
    "rung_correlation": _rungs,
    "search_slices": _slices,
    "pareto_front": _pareto,
    "parallel_coordinates": _parallel,
    "interactions": _interactions,
    "attention_spread": caption,
    "label_curves": _label_curves,
    "label_difficulty": _difficulty,
    "time_to_target": _target,
    "performance_profile": _profile,
}
