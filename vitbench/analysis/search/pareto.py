"""The Pareto front of a search with several objectives."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from vitbench.analysis import style
from vitbench.analysis.results import Results

NAMES = {
    "val_loss": "validation loss (nats)",
    "val_accuracy": "validation accuracy",
    "parameters": "parameters",
    "train_flops": "training FLOPs of one model",
    "lr_sensitivity": "learning-rate sensitivity (nats)",
}
_LOGARITHMIC = ("parameters", "train_flops")


def pareto_data(results: Results) -> pd.DataFrame | None:
    """Trained suggestions with their objectives and `pareto`; None where there is one objective."""
    path = results.folder / "suggestions.parquet"
    objectives = results.sweep["search"]["objectives"]
    if len(objectives) < 2 or not path.is_file():
        return None
    rows = pd.read_parquet(path)
    rows = rows[(rows["state"] == "COMPLETE") & rows["reason"].isna()]
    return rows[["number", "stack_id", *objectives, "pareto"]].reset_index(drop=True)


def draw_pareto(data: pd.DataFrame, title: str) -> Figure:
    """The first objective against each other one; suggestions on the front are filled."""
    first, *others = [name for name in NAMES if name in data.columns]
    figure = style.new_figure(4.5 * len(others), 3.8)
    with matplotlib.rc_context(style.RC):
        axes = figure.subplots(1, len(others), squeeze=False, sharey=True)[0]
        for ax, name in zip(axes, others, strict=True):
            for on_front, part in data.groupby("pareto"):
                ax.plot(
                    part[name],
                    part[first],
                    ls="",
                    marker="o",
                    color=style.COLOURS[1 if on_front else 0],
                    markerfacecolor=style.COLOURS[1] if on_front else "none",
                    label="on the front" if on_front else "beaten by another",
                )
            if name in _LOGARITHMIC and data[name].max() > 5 * data[name].min():
                ax.set_xscale("log")
            ax.set_xlabel(NAMES[name])
        axes[0].set_ylabel(NAMES[first])
        axes[-1].legend()
        figure.suptitle(style.wrapped(title))
    return figure
