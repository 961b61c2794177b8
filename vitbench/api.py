"""What a notebook or a program calls: `import vitbench`, then one of these.

sweep = vitbench.load_sweep("sweeps/mnist_lr.yaml")
results = vitbench.run(sweep, out="results", seeds=6)
results = vitbench.open("results/mnist_lr/20260101-120000-ab12")
results.trials, results.findings, results.figure("loss_by_lr"), results.report()
model = vitbench.load_model(results.folder, "best")
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.analysis import results as analysis_results
from vitbench.analysis import summary
from vitbench.config import Sweep, SweepFile, resolved_yaml, yaml_file
from vitbench.config import load_sweep as load_sweep_file
from vitbench.config.yaml_file import Document
from vitbench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from vitbench.training.plain import PlainModel


@dataclass(frozen=True)
class Results:
    """One results folder, finished or not.

    Its tables have the columns of docs/results.md; what is computed from them is kept.
    """

    folder: Path

    @cached_property
    def _opened(self) -> analysis_results.Results:
        return analysis_results.load(self.folder)

    @property
    def trials(self) -> pd.DataFrame:
        """A row per trained model: settings, how it ended, losses and accuracies."""
        return self._opened.trials

    @property
    def epochs(self) -> pd.DataFrame:
        """A row per model and epoch."""
        return self._opened.epochs

    @property
    def labels(self) -> pd.DataFrame:
        """A row per model and label; none where models learned classes."""
        return self._opened.labels

    @property
    def findings(self) -> list[summary.FindingJson]:
        """What the results support: sentences with what they rest on."""
        return self._summary["findings"]

    @property
    def claims(self) -> list[summary.ClaimJson]:
        """The claims of the sweep file with their verdicts."""
        return self._summary["claims"]

    @property
    def limits(self) -> list[str]:
        """What the results cannot tell."""
        return self._summary["limits"]

    @cached_property
    def _summary(self) -> summary.SummaryJson:
        return summary.as_json(self._opened)

    def figure(self, name: str) -> Figure:
        """One figure of the report as a matplotlib figure.

        Raises:
            UserError: if the results do not support it; names those that they do.
        """
        from vitbench.analysis import figures

        return figures.by_name(self._opened, name)

    def report(self) -> Path:
        """Draw all figures and write report.html; returns its path."""
        from vitbench.analysis.report import report

        return report.draw_and_write_opened(self._opened)[-1]


def load_sweep(
    source: Path | str | Mapping[str, Any], *, scale: str = "paper", overrides: Sequence[str] = ()
) -> Sweep:
    """A sweep from its file, or from a mapping with the keys of one.

    Args:
        source: path of a YAML file, or the same as nested mappings.
        scale: one that the file names; `paper` is the file as it stands.
        overrides: `key=value`, as for --set.

    Raises:
        UserError: with everything that is wrong with it.
    """
    if isinstance(source, Mapping):
        file = SweepFile(Path("sweep"), Document(dict(source), {}))
        return file.sweep(scale=scale, overrides=overrides)
    return load_sweep_file(source, scale=scale, overrides=overrides)


def run(
    sweep: Path | str | Mapping[str, Any] | Sweep,
    *,
    out: Path | str = "results",
    resume: bool | Path | str = False,
    options: Sequence[str] = (),
) -> Results:
    """Train a sweep to its end, as `vitbench sweep` does, and open its results.

    Where a sweep is given as a mapping or an object, it is written to `<out>/<name>/` first, so
    that the run can be repeated and resumed from the command line. Ctrl-C ends the training and
    returns the results so far.

    Args:
        sweep: its file, a mapping with the keys of one, or a Sweep.
        out: where results folders go.
        resume: go on with the latest run of this sweep under `out`, or with the folder named.
        options: further words of the command line, e.g. `["--seeds", "6", "--scale", "laptop"]`.

    Raises:
        UserError: for bad input; nothing was started.
    """
    from rich.console import Console

    from vitbench import sweep as command
    from vitbench.commands.request import Request

    if isinstance(sweep, Mapping):
        load_sweep(sweep)  # a name that cannot be one makes no folder
    file = Path(sweep) if isinstance(sweep, str | os.PathLike) else _written(sweep, Path(out))
    words = [str(file), "--out", str(out), *options]
    if resume:
        words += ["--resume"] if resume is True else ["--resume", str(resume)]
    _, folder = command.run(Request.parse(words), Console())
    if folder is None:
        raise UserError("--dry-run: trains nothing, so there are no results; leave it out")
    return Results(folder)


def open(folder: Path | str) -> Results:
    """The results of a sweep, finished or not.

    Raises:
        UserError: if the folder holds no results.
    """
    results = Results(Path(folder))
    results._opened  # noqa: B018 - a folder without results is refused here
    return results


def load_model(folder: Path | str, trial: str = "best") -> PlainModel:
    """A trained model with its preprocessing: images in, logits out.

    Args:
        folder: of the results.
        trial: `best` (lowest validation loss at any epoch), or a trial's id or its beginning.

    Returns:
        A torch module, [B, C, Y, X] -> [B, outputs], with the weights of the trial's epoch of
        lowest validation loss. Images are uint8, or floats from 0 to 1.

    Raises:
        UserError: if there is no such trial, or its checkpoint was not kept.
    """
    from vitbench.attention.subject import choose
    from vitbench.training.plain import PlainModel

    results = analysis_results.load(Path(folder))
    trial_id = choose(results, trial, None)
    row = results.trials.set_index("trial_id").loc[trial_id]
    return PlainModel.load(results.folder / str(row["checkpoint"]))


def _written(sweep: Mapping[str, Any] | Sweep, out: Path) -> Path:
    """A sweep as a file whose name tells its content."""
    if isinstance(sweep, Sweep):
        text, name = resolved_yaml(sweep), sweep.name
    else:
        text, name = yaml_file.dump(dict(sweep)), str(sweep.get("name", "sweep"))
    file = out / name / f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:8]}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file
