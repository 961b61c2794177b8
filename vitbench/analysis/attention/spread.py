"""The paper's conclusion as a figure: does a wider attention go with a higher training loss?

Spread is the effective number of patches, exp(entropy) of the last layer's CLS-to-patch map, mean
over test images (arXiv:2303.06296 logs the same entropy), of the weights of the epoch of lowest
validation loss. Losses are of the same epoch.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from vitbench.analysis import style
from vitbench.analysis.attention.findings import LOSSES, associations, losses_of, spread_data
from vitbench.analysis.figure_spec import FigureSpec
from vitbench.analysis.findings.render import sentence
from vitbench.analysis.results import Results

_MAX_GROUPS = 8


def draw_spread(data: pd.DataFrame, title: str) -> Figure:
    """A panel per loss: effective patches against it, a dot per model, a diamond per unit."""
    shown = losses_of(data)
    with style.canvas(4.9 * len(shown) + 0.6, 4.4, title, wrap=50 * len(shown)) as figure:
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        groups = list(data["group"].unique())
        for ax, name in zip(axes, shown, strict=True):
            for group, colour in style.colour_of(groups).items():
                part = data[data["group"] == group]
                ax.plot(part["effective_patches"], part[name], "o", color=colour, ms=4, alpha=0.6)
                ax.plot(
                    part["effective_patches"].mean(),
                    part[name].mean(),
                    "D",
                    color=colour,
                    ms=8,
                    mec="black",
                    label=str(group) if len(groups) <= _MAX_GROUPS else None,
                )
            patches = int(data["patches"].max())
            ax.set_xlabel(f"effective patches of {patches}, last layer")
            ax.set_ylabel(LOSSES[name])
        if len(groups) <= _MAX_GROUPS:
            handles, texts = axes[0].get_legend_handles_labels()
            figure.legend(handles, texts, loc="outside lower center", ncols=min(4, len(groups)))
    return figure


def caption(data: pd.DataFrame) -> str:
    """What the data support of "the wider the attention, the higher the training loss"."""
    return " ".join(map(sentence, associations(data)))


FIGURES: tuple[FigureSpec[Results], ...] = (
    FigureSpec("attention_spread", "attention", "Spread of attention against loss", spread_data,
               draw_spread, caption),
)  # fmt: skip
