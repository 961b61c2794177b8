"""Findings on the learning rate: sensitivity and safe window per model, and whether it moves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping
from dataclasses import asdict
from typing import Any

from vitbench.analysis.findings.arms import by_settings, in_words, names_of, shape_names
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.settings import FAMILY, judged_pairs
from vitbench.analysis.learning_rate import sensitivity
from vitbench.analysis.learning_rate.settled import settled
from vitbench.analysis.results import Results

_MAX_MODELS = 6


def findings(results: Results) -> list[Finding]:
    """One finding per model (combination of the other settings), then whether the rate moves."""
    trials = results.trials
    if trials["lr"].nunique() < 2 or not results.is_grid:
        return []
    names = [name for name in names_of(results) if name != "lr"]
    table = sensitivity.table(trials, names)
    rows = table[table["rates"] != 1].to_dict("records")  # one with an end is not compared
    shape = shape_names(results)
    if "train_images" in shape and trials["lr"].nunique() < sensitivity.MIN_RATES:
        return _movement(results, rows, shape)  # the best rates are told with the sizes' curves
    told = [
        Finding(
            kind="lr_sensitivity",
            arms=(_model(row, shape),),
            metric="val_loss",
            effect=_known(row["s_trapz"]),
            low=_known(row["s_trapz_low"]),
            high=_known(row["s_trapz_high"]),
            n=row["seeds"],
            facts=_facts(row),
        )
        for row in rows[:_MAX_MODELS]
    ]
    told += _settled(results, shape)
    if len(rows) > _MAX_MODELS:
        told.append(Finding("lr_more_models", n=len(rows) - _MAX_MODELS))
    return told + _movement(results, rows, shape)


def _settled(results: Results, names: list[str]) -> list[Finding]:
    """Per model, since when its best rates are in the order in which they end."""
    told = []
    for cell, trials in by_settings(results.trials, names, sort=True)[:_MAX_MODELS]:
        found = settled(trials, results.epochs)
        if found is not None:
            told.append(
                Finding(
                    kind="lr_settled",
                    arms=(in_words(names, cell),),
                    metric="val_loss",
                    n=found.seeds,
                    facts=asdict(found),
                )
            )
    return told


def no_sensitivity(row: Mapping[Any, Any]) -> Finding:
    """Why a model (a row of `sensitivity.table`) has no S."""
    return Finding("no_sensitivity", metric="val_loss", n=row["seeds"], facts=_facts(row))


def _facts(row: Mapping[Any, Any]) -> dict[str, Any]:
    known = {str(name): _known(value) for name, value in row.items()}
    return known | {"rates_needed": sensitivity.MIN_RATES, "learned": sensitivity.LEARNED}


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _model(row: Mapping[Hashable, Any], names: list[str]) -> str:
    return in_words(names, (row[name] for name in names))


def _movement(results: Results, rows: list[dict[Hashable, Any]], names: list[str]) -> list[Finding]:
    """Whether the best rate differs between models, and whether the seeds support that.

    It does where, of two models, each is told apart to be worse at the other's rate.
    """
    known = [row for row in rows if not math.isnan(row["best_lr"])]
    if len(known) < 2:
        return []
    lowest = {_model(row, names): float(row["best_lr"]) for row in known}
    worse = {(pair.a, pair.b) for pair in judged_pairs(results) if pair.told_apart}
    order = names_of(results)

    def is_worse_at(row: Mapping[Hashable, Any], lr: float) -> bool:
        there, best = (_model({**row, "lr": rate}, order) for rate in (lr, row["best_lr"]))
        return (there, best) in worse

    moved = [
        (_model(one, names), _model(other, names))
        for one, other in itertools.combinations(known, 2)
        if is_worse_at(one, other["best_lr"]) and is_worse_at(other, one["best_lr"])
    ]
    return [
        Finding(
            kind="lr_movement",
            family=FAMILY,
            asserts=bool(moved),
            arms=tuple(dict.fromkeys(itertools.chain.from_iterable(moved))),
            metric="test_loss",
            n=int(results.trials["seed"].nunique()),
            facts={"lowest": lowest, "moved": moved, "same": len(set(lowest.values())) == 1},
        )
    ]
