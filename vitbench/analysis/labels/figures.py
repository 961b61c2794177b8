"""Figures of label difficulty: curves by label (the paper's Figure 6) and the measures beside."""

from __future__ import annotations

import textwrap

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vitbench.analysis import style
from vitbench.analysis.figure_spec import FigureSpec
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.labels import numbers as labels
from vitbench.analysis.results import Results
from vitbench.records.labels import entropy
from vitbench.records.tables import not_evaluated

_MAX_LABELS = 12
_PANELS_PER_ROW = 3


def curves_data(results: Results) -> pd.DataFrame | None:
    """Training loss and validation information gain by epoch, each label at its own settings.

    Columns: `label`, `epoch`, `what` (`train_loss`, `val_rig`), `mean`, `low`, `high` (lowest and
    highest seed), `seeds`, `constant` (H(p) of the training images). None without two labels, or
    where models learned all labels at once and have one loss for them.
    """
    rows = labels.chosen(results)
    if rows.empty or (rows["task"] != "one label").any():
        return None
    columns = ["trial_id", "label", "train_base_rate", "val_base_rate"]
    merged = results.epochs.merge(rows[columns], on="trial_id")
    evaluated = ~not_evaluated(merged)
    start = results.trials.set_index("trial_id")["initial_val_loss"].astype(float)
    for loss in ("train_loss", "val_loss"):  # a model that diverged is back at its start
        merged[loss] = merged[loss].astype(float).fillna(merged["trial_id"].map(start))
    merged["constant"] = merged["train_base_rate"].map(entropy)
    merged["val_rig"] = 1.0 - merged["val_loss"] / merged["val_base_rate"].map(entropy)
    parts = []
    for what in ("train_loss", "val_rig"):
        measured = merged[evaluated] if what == "val_rig" else merged
        grouped = measured.groupby(["label", "epoch", "constant"], sort=False)
        part = grouped[what].agg(mean="mean", low="min", high="max", seeds="count")
        parts.append(part.reset_index().assign(what=what))
    return pd.concat(parts, ignore_index=True)


def draw_curves(data: pd.DataFrame, title: str) -> Figure:
    """Two panels, a line per label; dashed lines are the constants' losses.

    Bands run from the lowest to the highest seed, from three seeds on.
    """
    with style.canvas(3.6, title) as figure:
        left, right = figure.subplots(1, 2, sharex=True)
        names = list(data["label"].unique())[:_MAX_LABELS]
        for label, colour in style.colour_of(names).items():
            lines = data[data["label"] == label]
            for ax, what in ((left, "train_loss"), (right, "val_rig")):
                style.mean_line(ax, lines[lines["what"] == what], colour, str(label))
            left.axhline(lines["constant"].iloc[0], color=colour, ls="--", lw=1, alpha=0.8)
        right.axhline(0.0, color="0.4", ls="--", lw=1)
        left.set_title("training loss\n(dashed: the best constant answer)")
        left.set_ylabel("binary cross entropy (nats)")
        right.set_title("share of the label's information gained\n(validation; dashed: none)")
        right.set_ylabel("1 - BCE / H(base rate)")
        for ax in (left, right):
            style.whole_numbers(ax)
        low = max(-1.0, data.loc[data["what"] == "val_rig", "low"].min())
        right.set_ylim(min(-0.05, low), 1.0)
        ends = data[data["what"] == "val_rig"].sort_values("epoch").groupby("label")["mean"].last()
        colours = style.colour_of(names)
        style.label_ends(right, [(ends[label], str(label), colours[label]) for label in names])
    return figure


def describe_curves(data: pd.DataFrame) -> Finding:
    """Training loss and information gained of each label at the last epoch."""
    last = data[data["epoch"] == data["epoch"].max()]
    ends = last.pivot(index="label", columns="what", values="mean").loc[last["label"].unique()]
    facts = {"epoch": int(data["epoch"].max()), "ends": ends.to_dict("index")}
    return Finding("drawn_label_curves", facts=facts)


def difficulty_data(results: Results) -> pd.DataFrame | None:
    """A row per label, measure and seed: `value`, beside the mean and interval of labels.summary.

    Further columns: `chance` (what a constant or random answer scores), `rank`. None where no
    labels are compared.
    """
    rows = labels.chosen(results)
    if rows.empty:
        return None
    chances = {"train_loss_over_constant": 1.0, "nce": 1.0, "excess": 1.0, "roc_auc": 0.5}
    parts = []
    for column in (measure.column for measure in labels.MEASURES):
        part = rows[["label", "seed"]].assign(value=rows[column], measure=column)
        part["chance"] = chances.get(column, 0.0)
        if column == "train_loss":
            part["chance"] = rows["train_base_rate"].map(entropy)
        parts.append(part.dropna(subset=["value"]))
    values = pd.concat(parts, ignore_index=True)
    return values.merge(labels.summary(rows), on=["label", "measure"])


def forest_data(results: Results) -> pd.DataFrame | None:
    """The rows of `difficulty_data` of the measure that corrects most, the easiest label first."""
    data = difficulty_data(results)
    if data is None:
        return None
    head = labels.headline(labels.chosen(results)).column
    return data[data["measure"] == head].sort_values(["rank", "seed"], ignore_index=True)


def draw_difficulty(data: pd.DataFrame, title: str) -> Figure:
    """A panel per measure, a row per label: a dot per seed, mean and t interval, rank beside.

    Triangles are what an answer without looking scores. In every panel the easier labels are to
    the right.
    """
    names = list(data["label"].unique())[:_MAX_LABELS]
    shown = [m for m in labels.MEASURES if (data["measure"] == m.column).any()]
    columns = min(_PANELS_PER_ROW, len(shown))
    rows = -(-len(shown) // columns)
    with style.canvas(0.7 + rows * (0.7 + 0.34 * len(names)), title) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for ax, measure in zip(axes, shown, strict=False):
            for y, (label, colour) in enumerate(style.colour_of(names).items()):
                part = data[(data["label"] == label) & (data["measure"] == measure.column)]
                if part.empty:
                    continue
                ax.plot(part["value"], [y] * len(part), "o", color=colour, ms=4, alpha=0.6)
                one = part.iloc[0]
                ax.plot([one["low"], one["high"]], [y] * 2, color=colour, lw=1.5)
                ax.plot(one["mean"], y, "|", color=colour, ms=16, mew=2.5)
                ax.plot(one["chance"], y, "v", color=colour, ms=7, mfc="none")
                ax.annotate(
                    f"{one['rank']}.", (one["mean"], y), (0, 9), textcoords="offset points",
                    ha="center", fontsize=8, color="0.3",
                )  # fmt: skip
            if measure.less_is_easier:
                ax.invert_xaxis()
            ax.set_title(textwrap.fill(measure.title, 30), fontsize=8)
            ax.set_yticks(range(len(names)), names)
            ax.set_ylim(len(names) - 0.4, -0.6)
        for ax in axes[len(shown) :]:
            ax.set_visible(False)
        marks = (("o", "a seed"), ("|", "mean, 95 % t interval"), ("v", "without looking"))
        figure.legend(
            [Line2D([], [], ls="", color="0.3", marker=mark, mfc="none") for mark, _ in marks],
            [text for _, text in marks], loc="outside lower center", ncols=len(marks),
            title="easier to the right; numbers: rank, 1 the easiest",
        )  # fmt: skip
    return figure


def describe_difficulty(data: pd.DataFrame) -> Finding:
    """The mean of each label by each measure."""
    ranked = data.drop_duplicates(["title", "label"]).sort_values("rank").set_index("label")
    titles = data["title"].unique()
    measures = {name: ranked[ranked["title"] == name]["mean"].to_dict() for name in titles}
    return Finding("drawn_difficulty", facts={"measures": measures})


FIGURES: tuple[FigureSpec[Results], ...] = (
    FigureSpec("label_difficulty", "labels", "Label difficulty, measure by measure",
               difficulty_data, draw_difficulty, describe_difficulty),
    FigureSpec("label_forest", "labels", "Labels from the easiest to the hardest", forest_data,
               draw_difficulty, describe_difficulty, rank=6),
    FigureSpec("label_curves", "labels", "Learning curves by label", curves_data, draw_curves,
               describe_curves),
)  # fmt: skip
