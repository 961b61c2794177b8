"""All figures of a results folder, drawn from its tables or again from the CSV of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from vitbench.analysis import figure_spec, results, style
from vitbench.analysis.attention import figures as attention
from vitbench.analysis.compare import figures as compare
from vitbench.analysis.data_size import figures as data_size
from vitbench.analysis.figure_spec import Drawn, FigureSpec
from vitbench.analysis.labels import figures as labels
from vitbench.analysis.learning_rate import figures as learning_rate
from vitbench.analysis.results import Results
from vitbench.analysis.search import figures as search
from vitbench.analysis.settings import figures as settings
from vitbench.analysis.time_to_target import figures as time_to_target
from vitbench.errors import UserError
from vitbench.records.rows import EPOCHS, TRIALS

# Each package lists its figures; a new one is added there and nowhere else.
FIGURES: tuple[FigureSpec[Results], ...] = (
    *data_size.FIGURES,
    *learning_rate.FIGURES,
    *labels.FIGURES,
    *settings.FIGURES,
    *search.FIGURES,
    *time_to_target.FIGURES,
    *attention.FIGURES,
)
# The types of the tables' columns: label "3" must not become the number 3.
_TYPES = {column.name: column.dtype for column in (*EPOCHS, *TRIALS)}
del _TYPES["epochs"]  # of a figure they may be infinite: a target that was never reached
_TYPES |= dict.fromkeys(("group", "arm", "workload", "setting", "curve"), "string")


def draw_all(opened: Results) -> list[Drawn]:
    """Draw every figure that the tables support into `<folder>/figures`."""
    folder = opened.folder / "figures"
    with style.rates_of_sweep(opened.trials["lr"]):
        drawn = figure_spec.draw(FIGURES, opened, opened.subtitle, folder)
    for name in {spec.name for spec in FIGURES} - {one.spec.name for one in drawn}:
        for old in folder.glob(f"{name}.*"):  # drawn before, with a target or fewer trials
            old.unlink()
    return drawn


def draw_main(opened: Results, folder: Path) -> list[Drawn]:
    """Draw the figure of what the sweep is about alone, as PNG; none where none is supported."""
    with style.rates_of_sweep(opened.trials["lr"]):
        for spec in sorted(FIGURES, key=lambda spec: -spec.rank):
            if spec.rank and (
                drawn := figure_spec.draw([spec], opened, opened.subtitle, folder, (".png",))
            ):
                return drawn
    return []


def by_name(opened: Results, name: str) -> Figure:
    """One figure of the report by its name, e.g. `lr_sensitivity`.

    Raises:
        UserError: if the results do not support it; names those that they do.
    """
    spec, data = find(opened, name)
    with style.rates_of_sweep(opened.trials["lr"]):
        return spec.draw(data, spec.title(data, opened.subtitle))


def find(opened: Results, name: str) -> tuple[FigureSpec[Results], pd.DataFrame]:
    """A figure of the report by its name, with its numbers; raises as `by_name`."""
    wanted = [spec for spec in FIGURES if spec.name == name]
    for found in figure_spec.supported(wanted, opened):
        return found
    names = ", ".join(sorted(spec.name for spec, _ in figure_spec.supported(FIGURES, opened)))
    raise UserError(f"{opened.folder}: supports no figure {name!r}; it has {names}")


def read(csv: Path) -> pd.DataFrame:
    """The numbers of a figure from its CSV, each column with the type that it was drawn with."""
    columns = pd.read_csv(csv, nrows=0).columns
    return pd.read_csv(csv, dtype={name: _TYPES[name] for name in columns if name in _TYPES})


def redraw(csv: Path, title: str | None = None) -> Figure:
    """Draw a figure again from its CSV alone, whose name says which figure it is.

    The title is the one that it had in its results folder if left out.

    Raises:
        UserError: if the file is missing or is not the CSV of a figure.
    """
    try:
        data = read(csv)
    except (OSError, ValueError) as error:
        raise UserError(f"{csv}: cannot be read as the CSV of a figure ({error})") from error
    every: tuple[FigureSpec[Any], ...] = (*FIGURES, *compare.FIGURES)
    specs = {spec.name: spec for spec in every}
    if csv.stem not in specs:
        raise UserError(
            f"{csv}: is not the CSV of a figure; name one of <results>/figures, or of <page>_files "
            f"beside a comparison"
        )
    spec, folder = specs[csv.stem], csv.resolve().parent.parent
    opened = results.load(folder) if (folder / "sweep.yaml").is_file() else None
    if title is None:
        title = spec.title(data, opened.subtitle if opened else "")
    with style.rates_of_sweep(opened.trials["lr"] if opened else ()):
        return spec.draw(data, title)
