"""Error and loss against the number of training images, at each number's own best learning rate.

The rate is chosen on validation loss, for each seed by the other seeds, so that the curve is free
of the luck of choosing. Beside it stands the rate that is best over all sizes together: what it
costs not to tune again.

Shape legend: S seeds, N sizes, R learning rates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vitbench.analysis.findings.arms import by_settings, in_words, names_of, standing_in
from vitbench.analysis.results import Results, computed_once
from vitbench.analysis.statistics import Floats, choice_of_others

SIZE = "train_images"
_NOT_LEARNED = 0.05  # an error so close to that of guessing is of models that learned nothing


@dataclass(frozen=True)
class Curve:
    """One model (all settings but size, learning rate and seed) over numbers of training images.

    Attributes:
        name: the settings in words; empty where they do not vary.
        label: that the models learned; empty for all classes.
        seeds: that have an end at every size and rate.
        left_out: seeds that have not.
        sizes: training images, ascending, [N].
        rates: learning rates, ascending, [R].
        error_SN: test error, 1 - test accuracy, at the rate that the other seeds choose.
        loss_SN: test loss there, in nats.
        fixed_error_SN: test error at one rate for all sizes, chosen by the other seeds, too.
        best_N: place of the rate of lowest mean validation loss at each size.
        fixed: place of the rate of lowest geometric mean validation loss over sizes.
        agree_N: seeds for which the others choose that same rate.
        guessing: test error of a model that has learned nothing.
        drawn: whether each seed draws its own images.
        half_image: half a test image's share of the error: what stands in for no error at all.
    """

    name: str
    label: str
    seeds: tuple[int, ...]
    left_out: int
    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    error_SN: Floats
    loss_SN: Floats
    fixed_error_SN: Floats
    best_N: tuple[int, ...]
    fixed: int
    agree_N: tuple[int, ...]
    guessing: float
    drawn: bool
    half_image: float

    @property
    def learned_N(self) -> list[int]:
        """Places of the sizes from the first on at which the models are better than guessing."""
        is_learned = self.error_SN.mean(axis=0) < (1 - _NOT_LEARNED) * self.guessing
        first = int(is_learned.argmax()) if is_learned.any() else len(self.sizes)
        return list(range(first, len(self.sizes)))

    def log_error(self, error_SN: Floats | None = None) -> Floats:
        """Logarithm of the test error, in which equal factors are equal steps."""
        error_SN = self.error_SN if error_SN is None else error_SN
        return np.log(np.maximum(error_SN, self.half_image))


@computed_once
def curves_of(results: Results) -> list[Curve]:
    """The curves of a grid over numbers of training images; none where these do not vary."""
    trials = results.trials
    if not results.is_grid or SIZE not in names_of(results) or trials[SIZE].nunique() < 2:
        return []
    varied = [name for name in names_of(results) if name not in (SIZE, "lr")]
    names = [name for name in varied if trials[name].nunique(dropna=False) > 1]
    found = []
    for cell, part in by_settings(trials, names):
        labels = part["label"].dropna().unique()
        label = str(labels[0]) if len(labels) == 1 else ""
        curve = _curve(part, in_words(names, cell), label, _guessing(results, part), results)
        if curve is not None:
            found.append(curve)
    return found


def _curve(
    part: pd.DataFrame, name: str, label: str, guessing: float, results: Results
) -> Curve | None:
    """One curve; None where no seed has an end at every size and rate."""
    keys = pd.MultiIndex.from_product([sorted(part[SIZE].unique()), sorted(part["lr"].unique())])
    by_metric = {}
    for metric in ("val_loss", "test_accuracy", "test_loss"):
        rows = part.assign(value=standing_in(part, metric))
        table = rows.pivot(index="seed", columns=[SIZE, "lr"], values="value").astype(float)
        by_metric[metric] = table.reindex(columns=keys)
    whole = pd.concat(by_metric.values(), axis=1).dropna().index
    if whole.empty:
        return None
    sizes, rates = (tuple(level.tolist()) for level in keys.levels)
    shape = (len(whole), len(sizes), len(rates))
    val_SNR, accuracy_SNR, loss_SNR = (
        table.loc[whole].to_numpy(dtype=np.float64).reshape(shape) for table in by_metric.values()
    )
    chosen_SN = np.stack([choice_of_others(val_SNR[:, n]) for n in range(shape[1])], axis=1)
    over_sizes_SR = np.log(val_SNR).mean(axis=1)
    fixed_SN = np.repeat(choice_of_others(over_sizes_SR)[:, None], shape[1], axis=1)
    best_N = val_SNR.mean(axis=0).argmin(axis=1)
    return Curve(
        name=name,
        label=label,
        seeds=tuple(int(seed) for seed in whole),
        left_out=part["seed"].nunique() - len(whole),
        sizes=sizes,
        rates=rates,
        error_SN=1.0 - _at(accuracy_SNR, chosen_SN),
        loss_SN=_at(loss_SNR, chosen_SN),
        fixed_error_SN=1.0 - _at(accuracy_SNR, fixed_SN),
        best_N=tuple(best_N.tolist()),
        fixed=int(over_sizes_SR.mean(axis=0).argmin()),
        agree_N=tuple((chosen_SN == best_N).sum(axis=0).tolist()),
        guessing=guessing,
        drawn="subset" in part and bool((part["subset"] == "per_seed").all()),
        half_image=0.5 / _test_images(results, part),
    )


def _at(values_SNR: Floats, place_SN: np.ndarray) -> Floats:
    return np.take_along_axis(values_SNR, place_SN[..., None], axis=2)[..., 0]


def _guessing(results: Results, part: pd.DataFrame) -> float:
    """Test error without looking at an image: of a label the rarer side, else 1 - exp(-loss)."""
    labels = results.labels
    rates = labels.loc[labels["trial_id"].isin(part["trial_id"]), "majority_rate"].dropna()
    if len(rates):
        return 1.0 - float(rates.mean())
    return 1.0 - float(np.exp(-part["initial_val_loss"].astype(float).mean()))


def _test_images(results: Results, part: pd.DataFrame) -> int:
    """Test images that errors are counted on; a thousand where no table says it."""
    known = part["test_images"].dropna()
    counts = results.environment.get("images") or {}
    return int(known.iloc[0]) if len(known) else int(counts.get("test") or 1000)
