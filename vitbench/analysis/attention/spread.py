"""The paper's conclusion as a figure: does a wider attention go with a higher training loss?

Spread is the effective number of patches, exp(entropy) of the last layer's CLS-to-patch map, mean
over test images (arXiv:2303.06296 logs the same entropy). Losses are the training loss, as in the
paper, and, where models learned labels, the normalised cross entropy, which base rates do not move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from vitbench.analysis import style
from vitbench.analysis.figure_spec import FigureSpec
from vitbench.analysis.findings.arms import setting
from vitbench.analysis.results import Results

_MIN_POINTS = 5
_RESAMPLES = 2000
_MAX_GROUPS = 8
LOSSES = {
    "train_loss": "training loss at the last epoch (nats)",
    "nce": "normalised cross entropy, test",
}


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho with its bootstrap interval; None where there are too few points."""

    rho: float
    low: float | None
    high: float | None
    n: int


def spread_data(results: Results) -> pd.DataFrame | None:
    """A row per model: `trial_id`, `group`, `effective_patches`, `patches`, `train_loss`, `nce`.

    `group` is the label, or else the learning rate. None where no spread was recorded, or of fewer
    than three models.
    """
    path = results.folder / "attention" / "spread.csv"
    if not path.is_file():
        return None
    spread = pd.read_csv(path)[["trial_id", "effective_patches", "patches", "images"]]
    columns = ["trial_id", "label", "lr", "seed", "train_loss"]
    rows = spread.merge(results.trials[columns], on="trial_id").dropna(subset=["train_loss"])
    alone = results.labels[results.labels["task"] == "one label"]
    nce = alone.set_index("trial_id")["nce"].astype(float)
    rows["nce"] = rows["trial_id"].map(nce).astype(float)
    rows["group"] = (
        rows["label"].astype("string")
        if rows["label"].nunique() > 1
        else rows["lr"].map(lambda lr: setting("lr", float(lr)))
    )
    return rows.reset_index(drop=True) if len(rows) >= 3 else None


def rank_correlation(x: pd.Series, y: pd.Series) -> RankCorrelation:
    """Spearman's rho over models, with a percentile bootstrap interval over models.

    Models of one label are not independent, so the interval is if anything too narrow; below five
    models there is none.
    """
    known = x.notna() & y.notna()
    a, b = x[known].to_numpy(dtype=float), y[known].to_numpy(dtype=float)
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return RankCorrelation(math.nan, None, None, len(a))
    rho = float(stats.spearmanr(a, b).statistic)
    if len(a) < _MIN_POINTS:
        return RankCorrelation(rho, None, None, len(a))
    # Not by scipy.stats.bootstrap, which has no place for resamples of one value throughout:
    # they have no rho and are left out.
    index = np.random.default_rng(0).integers(0, len(a), (_RESAMPLES, len(a)))
    x_ranks, y_ranks = (stats.rankdata(values[index], axis=1) for values in (a, b))
    x_ranks -= x_ranks.mean(axis=1, keepdims=True)
    y_ranks -= y_ranks.mean(axis=1, keepdims=True)
    length = np.sqrt((x_ranks**2).sum(axis=1) * (y_ranks**2).sum(axis=1))
    varies = length > 0
    resampled = (x_ranks * y_ranks).sum(axis=1)[varies] / length[varies]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return RankCorrelation(rho, float(low), float(high), len(a))


def losses_of(data: pd.DataFrame) -> list[str]:
    """The losses that the models have."""
    return [name for name in LOSSES if data[name].notna().any()]


def draw_spread(data: pd.DataFrame, title: str) -> Figure:
    """A panel per loss: effective patches against it, a dot per model, a diamond per group."""
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
            found = rank_correlation(data["effective_patches"], data[name])
            ax.set_title(_said(found), fontsize=9)
            patches = int(data["patches"].max())
            ax.set_xlabel(f"effective patches of {patches}, last layer")
            ax.set_ylabel(LOSSES[name])
        if len(groups) <= _MAX_GROUPS:
            handles, texts = axes[0].get_legend_handles_labels()
            figure.legend(handles, texts, loc="outside lower center", ncols=min(4, len(groups)))
    return figure


def _said(found: RankCorrelation) -> str:
    if not math.isfinite(found.rho):
        return f"no rank correlation (n = {found.n})"
    interval = (
        f"95 % interval {found.low:.2f} to {found.high:.2f}"
        if found.low is not None and found.high is not None
        else "too few models for an interval"
    )
    return f"Spearman's rho {found.rho:.2f}, {interval}, n = {found.n}"


def caption(data: pd.DataFrame) -> str:
    """What the data support of "the wider the attention, the higher the training loss"."""
    parts = []
    for name in losses_of(data):
        found = rank_correlation(data["effective_patches"], data[name])
        what = "training loss" if name == "train_loss" else "the loss corrected for base rate"
        if found.low is None or found.high is None:
            parts.append(f"against {what}: too few models to say")
        else:
            said = "no direction can be told"
            if found.low > 0:
                said = "wider attention goes with a higher loss"
            elif found.high < 0:
                said = "wider attention goes with a lower loss"
            parts.append(f"against {what}: {said} ({_said(found)})")
    groups = data["group"].nunique()
    text = f"Spread of the last layer's attention {'; '.join(parts)}."
    if data["label"].notna().any():
        text += (
            f" The paper concludes from three labels that wider attention means a higher training "
            f"loss; here {groups} label{'s are' if groups != 1 else ' is'} behind the dots, so "
            f"between labels this remains {'an anecdote' if groups < 6 else 'a tendency'}."
        )
    return text


FIGURES: tuple[FigureSpec[Results], ...] = (
    FigureSpec(
        "attention_spread", "attention", "Spread of attention against loss", spread_data,
        draw_spread, caption,
    ),
)  # fmt: skip
