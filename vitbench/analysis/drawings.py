"""Each figure by name: what draws it, what stands above it, how its numbers are read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from vitbench.analysis import alt_text, results
from vitbench.analysis.attention import spread as attention_spread
from vitbench.analysis.compare import figures as comparison_figures
from vitbench.analysis.labels import figures as label_figures
from vitbench.analysis.learning_rate import curves
from vitbench.analysis.learning_rate import figures as lr_figures
from vitbench.analysis.search import figures as search_figures
from vitbench.analysis.search import overview as search_maps
from vitbench.analysis.search import pareto
from vitbench.analysis.time_to_target import figures as speed_figures
from vitbench.errors import UserError
from vitbench.records.rows import EPOCHS, TRIALS

Draw = Callable[[pd.DataFrame, str], Figure]
HEAT = "heat_lr_"
_DRAW: dict[str, Draw] = {
    "loss_by_lr": curves.draw_loss_by_lr,
    "lr_sensitivity": lr_figures.draw_sensitivity,
    "pareto_front": pareto.draw_pareto,
    "best_so_far": search_figures.draw_best_so_far,
    "search_slices": search_figures.draw_slices,
    "importance": search_figures.draw_importance,
    "best_of_k": search_figures.draw_best_of_k,
    "rung_correlation": search_figures.draw_rungs,
    "parallel_coordinates": search_maps.draw_parallel,
    "interactions": search_maps.draw_interactions,
    "label_curves": label_figures.draw_curves,
    "label_difficulty": label_figures.draw_difficulty,
    "attention_spread": attention_spread.draw_spread,
    "time_to_target": speed_figures.draw_target,
    "performance_profile": speed_figures.draw_profile,
    "merged_curves": comparison_figures.draw_curves,
    "paired_differences": comparison_figures.draw_differences,
}
# What a column of the tables holds is known: label "3" must not become the number 3.
_TYPES = {column.name: column.dtype for column in (*EPOCHS, *TRIALS)}
del _TYPES["epochs"]  # of a figure they may be infinite: a target that was never reached
_TYPES |= {"group": "string", "arm": "string", "workload": "string", "setting": "string"}


def draw_of(name: str, data: pd.DataFrame) -> Draw | None:
    """The function that draws a figure from its numbers; None for a name that is no figure's."""
    if name == "learning_curves":  # of a grid means by learning rate, of a search every trial
        return curves.draw_learning_curves if "split" in data else search_figures.draw_curves
    return lr_figures.draw_heat if name.startswith(HEAT) else _DRAW.get(name)


def title_of(name: str, data: pd.DataFrame, subtitle: str) -> str:
    """What stands above a figure: its heading, and what the results are of."""
    title = alt_text.heading(name)
    if name == "learning_curves" and "split" in data:
        title += " by learning rate"
    if name == "pareto_front":
        subtitle += f", {len(data)} suggestions"
    if "target" in data:
        title += f" {data['target'].iloc[0]:g}"
    return f"{title} ({subtitle})" if subtitle else title


def read(csv: Path) -> pd.DataFrame:
    """The numbers of a figure from its CSV, each column with the type that it was drawn with."""
    columns = pd.read_csv(csv, nrows=0).columns
    types = {name: _TYPES[name] for name in columns if name in _TYPES}
    return pd.read_csv(csv, dtype=types)


def redraw(csv: Path, title: str | None = None) -> Figure:
    """Draw a figure again from its CSV alone.

    Args:
        csv: a file that `vitbench.analysis` wrote; its name says which figure it is.
        title: what stands above it; if left out, the title that it had in its results folder.

    Raises:
        UserError: if the file is missing or is not the CSV of a figure.
    """
    try:
        data = read(csv)
    except (OSError, ValueError) as error:
        raise UserError(f"{csv}: cannot be read as the CSV of a figure ({error})") from error
    draw = draw_of(csv.stem, data)
    if draw is None:
        raise UserError(
            f"{csv}: is not the CSV of a figure; name one of <results>/figures, or of <page>_files "
            f"beside a comparison"
        )
    if title is None:
        folder = csv.resolve().parent.parent
        known = (folder / "sweep.yaml").is_file()
        title = title_of(csv.stem, data, results.load(folder).subtitle if known else "")
    return draw(data, title)
