"""Findings on labels: their order by each measure, which are harder, and what noise explains.

Every pair of labels in every measure of the chain training loss, training loss over H(p), test
NCE, excess over the noise floor is one family. An order is asserted where each of its steps is
told apart; two measures are said to order labels differently where a pair is told apart in both,
with opposite signs.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import (
    MIN_SEEDS_TO_CLAIM,
    Contrast,
    Pair,
    adjusted,
    smallest_p,
)
from vitbench.analysis.labels import numbers as labels
from vitbench.analysis.labels.numbers import Measure
from vitbench.analysis.results import Results
from vitbench.records.labels import entropy, wrong_among_positives

FAMILY = "labels"


def findings(results: Results) -> list[Finding]:
    """What the labels table supports; empty where no labels are compared."""
    choice = labels.choice(results)
    told = [Finding("labels_incomplete", arms=choice.incomplete)] if choice.incomplete else []
    if choice.diverged:
        gone = choice.diverged
        told.append(
            Finding("labels_diverged", arms=tuple(gone), n=sum(gone.values()), facts={"of": gone})
        )
    if choice.rows.empty:
        return told
    rows = choice.rows
    table, head = labels.summary(rows), labels.headline(rows)
    by_seed = {measure: labels.by_seed(rows, measure) for measure in _chain(rows)}
    values = {measure: seen for measure, seen in by_seed.items() if seen is not None}
    chain, pairs = list(values), _pairs(values)
    return [
        *(_order(rows, table, measure, pairs[measure.column]) for measure in chain),
        *(
            turned
            for one, other in itertools.pairwise(chain)
            if (turned := _turned(one, other, pairs, int(rows["seed"].nunique())))
        ),
        *(_harder(pair, head) for pair in pairs.get(head.column, ()) if pair.told_apart),
        *told,
        *_disagreement(table, head),
    ]


def limits(results: Results) -> list[Finding]:
    """What a comparison of labels cannot tell."""
    rows = labels.chosen(results)
    if rows.empty:
        return []
    told = [] if labels.is_matched(rows) else [Finding("limit_base_rates")]
    noise = results.environment.get("label_noise")
    if noise is None:
        told.append(Finding("limit_noise_unknown"))
    elif noise > 0:
        first = rows.groupby("label", sort=False)[["floor", "observed_rate"]].first().astype(float)
        known = first.dropna()
        told.append(
            Finding(
                "limit_noise",
                arms=tuple(map(str, first.index)),
                facts={
                    "noise": noise,
                    "floors": {str(label): row["floor"] for label, row in known.iterrows()},
                    "wrong": {
                        str(label): wrong_among_positives(row["observed_rate"], noise)
                        for label, row in known.iterrows()
                    },
                    "unknown": [str(label) for label in first.index if label not in known.index],
                    "matched": labels.is_matched(rows),
                },
            )
        )
    return told


def _chain(rows: pd.DataFrame) -> list[Measure]:
    """The measures from the paper's to the headline, one correction more in each."""
    chain = [labels.RAW]
    if not labels.is_matched(rows):  # else H(p) is the same for all
        chain.append(labels.OVER_CONSTANT)
    chain.append(labels.NCE)
    return [*chain, labels.EXCESS] if labels.headline(rows) == labels.EXCESS else chain


def _pairs(by_measure: dict[Measure, pd.DataFrame]) -> dict[str, list[Pair]]:
    """Every pair of labels by each measure, harder first; one family. Empty with one seed."""
    contrasts: list[Contrast] = []
    for values in by_measure.values():
        if len(values) < 2:
            return {measure.column: [] for measure in by_measure}
        order = values.mean().sort_values(ascending=False, kind="stable").index
        contrasts += [
            Contrast(str(a), str(b), (values[a] - values[b]).to_numpy(dtype=np.float64))
            for a, b in itertools.combinations(order, 2)
        ]
    every = iter(adjusted(contrasts))
    each = len(contrasts) // max(1, len(by_measure))
    return {measure.column: list(itertools.islice(every, each)) for measure in by_measure}


def _order(rows: pd.DataFrame, table: pd.DataFrame, measure: Measure, pairs: list[Pair]) -> Finding:
    """The labels by a measure, from the easiest; asserted where every step is told apart."""
    order = labels.order(table, measure.column)
    means = table[table["measure"] == measure.column].set_index("label")["mean"]
    by_names = {(pair.b, pair.a): pair for pair in pairs}
    steps = [by_names.get(step) for step in itertools.pairwise(order)]
    unclear = [
        f"{easier} and {harder}"
        for (easier, harder), pair in zip(itertools.pairwise(order), steps, strict=True)
        if pair is None or not pair.told_apart
    ]
    seeds = int(rows["seed"].nunique())
    free = rows.groupby("label", sort=False)["train_base_rate"].first().astype(float).map(entropy)
    matched = int(rows["matched"].iloc[0]) if labels.is_matched(rows) else None
    return Finding(
        kind="label_order",
        family=FAMILY,
        asserts=not unclear,
        arms=tuple(order),
        metric=measure.column,
        p_adjusted=max((pair.p_adjusted for pair in steps if pair), default=None),
        n=seeds,
        facts={
            "title": measure.title,
            "means": {label: float(means[label]) for label in order},
            "constants": {label: free[label] for label in order}
            if measure == labels.RAW and matched is None
            else {},
            "unclear": unclear,
            "matched": matched,
            "smallest_p": smallest_p(seeds),
            "can_claim": seeds >= MIN_SEEDS_TO_CLAIM,
            "seeds_needed": MIN_SEEDS_TO_CLAIM,
        },
    )


def _turned(
    one: Measure, other: Measure, pairs: dict[str, list[Pair]], seeds: int
) -> Finding | None:
    """Pairs that two measures order differently, where seeds support both directions."""
    first = {(pair.a, pair.b) for pair in pairs[one.column] if pair.told_apart}
    turned = [p for p in pairs[other.column] if p.told_apart and (p.b, p.a) in first]
    if not turned:
        return None
    return Finding(
        kind="label_order_turns",
        family=FAMILY,
        asserts=True,
        arms=tuple(dict.fromkeys(name for pair in turned for name in (pair.a, pair.b))),
        metric=other.column,
        p_adjusted=max(pair.p_adjusted for pair in turned),
        n=seeds,
        facts={
            "one": one.title,
            "other": other.title,
            "turned": [f"{pair.a} is the easier one by the former, and harder than {pair.b} by the "
                       f"latter" for pair in turned],
        },
    )  # fmt: skip


def _harder(pair: Pair, measure: Measure) -> Finding:
    facts = {"title": measure.title}
    return pair.assertion("label_is_harder", FAMILY, measure.column, facts=facts)


def _disagreement(table: pd.DataFrame, head: Measure) -> list[Finding]:
    """Measures whose means put the labels in another order than the headline's."""
    others, order = {}, labels.order(table, head.column)
    for measure in labels.MEASURES:
        there = labels.order(table, measure.column)
        if len(there) > 1 and there != order:
            tau = labels.agreement(table, head.column, measure.column)
            others[measure.title] = {"order": there, "tau": tau}
    facts = {"title": head.title, "order": order, "others": others}
    return [Finding("label_measures_disagree", facts=facts)] if others else []
