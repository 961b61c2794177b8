"""Findings on labels: their order by each measure, which are harder, and what noise explains.

Every pair of labels in every measure of the chain training loss, training loss over H(p), test
NCE, excess over the noise floor is one family. An order is asserted where each of its steps is
told apart; two measures are said to order labels differently where a pair is told apart in both,
with opposite signs.
"""

from __future__ import annotations

import itertools

import pandas as pd

from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import (
    Pair,
    adjusted,
    contrasts,
)
from vitbench.analysis.labels import numbers as labels
from vitbench.analysis.labels.numbers import Measure
from vitbench.analysis.results import Results, computed_once
from vitbench.records.labels import TARGET_RIG, entropy, wrong_among_positives

FAMILY = "labels"


def findings(results: Results) -> list[Finding]:
    """What the labels table supports; empty where no labels are compared."""
    choice = labels.choice(results)
    rows, gone = choice.rows, choice.diverged
    told = [Finding("labels_incomplete", arms=choice.incomplete)] if choice.incomplete else []
    if gone:
        counts = {"of": gone}
        told.append(
            Finding("labels_diverged", arms=tuple(gone), n=sum(gone.values()), facts=counts)
        )
    if rows.empty:
        return told
    reached = rows.groupby("label", sort=False)["reached"]
    known = reached.sum()[reached.count() > 0]
    if len(lost := tuple(str(label) for label in known.index[known == 0])):
        facts = {"share": TARGET_RIG}
        told.append(Finding("labels_not_learned", arms=lost, n=len(lost), facts=facts))
    table, head = labels.summary(rows), labels.headline(rows)
    pairs = pairs_of(results)
    return [
        *(_order(rows, table, measure, of_measure) for measure, of_measure in pairs.items()),
        *_turns(pairs, int(rows["seed"].nunique())),
        *(
            pair.assertion("label_is_harder", FAMILY, head.column, facts={"title": head.title})
            for pair in pairs.get(head, ())
            if pair.told_apart
        ),
        *told,
        *_disagreement(table, head),
    ]


def limits(results: Results) -> list[Finding]:
    """What a comparison of labels cannot tell."""
    rows, noise = labels.chosen(results), results.environment.get("label_noise")
    if rows.empty:
        return []
    told = [] if labels.is_matched(rows) else [Finding("limit_base_rates")]
    if noise is None:
        told.append(Finding("limit_noise_unknown"))
    elif noise > 0:
        first = rows.groupby("label", sort=False)[["floor", "observed_rate"]].first().astype(float)
        first.index = first.index.map(str)
        known = first.dropna()
        facts = {
            "noise": noise,
            "floors": known["floor"].to_dict(),
            "wrong": {
                label: wrong_among_positives(rate, noise)
                for label, rate in known["observed_rate"].items()
            },
            "unknown": list(first.index.difference(known.index, sort=False)),
            "matched": labels.is_matched(rows),
        }
        told.append(Finding("limit_noise", arms=tuple(first.index), facts=facts))
    return told


def _chain(rows: pd.DataFrame) -> list[Measure]:
    """The measures from the paper's to the headline, one correction more in each."""
    chain = [labels.RAW]
    if not labels.is_matched(rows):  # else H(p) is the same for all
        chain.append(labels.OVER_CONSTANT)
    chain.append(labels.NCE)
    return [*chain, labels.EXCESS] if labels.headline(rows) == labels.EXCESS else chain


@computed_once
def pairs_of(results: Results) -> dict[Measure, list[Pair]]:
    """Every pair of labels by each measure, harder first; one family. Empty with one seed."""
    rows = labels.chosen(results)
    by_seed = {measure: labels.by_seed(rows, measure) for measure in _chain(rows)}
    tested = {
        measure: contrasts(values) if len(values) > 1 else []
        for measure, values in by_seed.items()
        if values is not None
    }
    every = iter(adjusted(list(itertools.chain.from_iterable(tested.values()))))
    return {measure: list(itertools.islice(every, len(own))) for measure, own in tested.items()}


def _order(rows: pd.DataFrame, table: pd.DataFrame, measure: Measure, pairs: list[Pair]) -> Finding:
    """The labels by a measure, from the easiest; asserted where every step is told apart."""
    order = labels.order(table, measure.column)
    means = table[table["measure"] == measure.column].set_index("label")["mean"]
    by_names = {(pair.b, pair.a): pair for pair in pairs}
    steps = {step: by_names.get(step) for step in itertools.pairwise(order)}
    unclear = [
        f"{easier} and {harder}"
        for (easier, harder), pair in steps.items()
        if pair is None or not pair.told_apart
    ]
    seeds = int(rows["seed"].nunique())
    matched = int(rows["matched"].iloc[0]) if labels.is_matched(rows) else None
    constants = {}
    if measure == labels.RAW and matched is None:
        rates = rows.groupby("label", sort=False)["train_base_rate"].first().astype(float)
        constants = {label: entropy(rates[label]) for label in order}
    return Finding(
        kind="label_order",
        family=FAMILY,
        asserts=not unclear,
        arms=tuple(order),
        metric=measure.column,
        p_adjusted=max((pair.p_adjusted for pair in steps.values() if pair), default=None),
        n=seeds,
        facts={
            "title": measure.title,
            "means": {label: float(means[label]) for label in order},
            "constants": constants,
            "unclear": unclear,
            "matched": matched,
        },
    )


def _turns(pairs: dict[Measure, list[Pair]], seeds: int) -> list[Finding]:
    """Pairs that two measures order differently, where seeds support both directions."""
    told = []
    for (one, before), (other, after) in itertools.pairwise(pairs.items()):
        first = {(pair.a, pair.b) for pair in before if pair.told_apart}
        turned = [pair for pair in after if pair.told_apart and (pair.b, pair.a) in first]
        if not turned:
            continue
        names = [(pair.a, pair.b) for pair in turned]
        told.append(
            Finding(
                kind="label_order_turns",
                family=FAMILY,
                asserts=True,
                arms=tuple(dict.fromkeys(name for pair in turned for name in (pair.a, pair.b))),
                metric=other.column,
                p_adjusted=max(pair.p_adjusted for pair in turned),
                n=seeds,
                facts={"one": one.title, "other": other.title, "turned": names},
            )
        )
    return told


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
