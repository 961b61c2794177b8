"""Label difficulty in sentences: the paper's ranking, and whether it survives a fair comparison."""

from __future__ import annotations

import math

import pandas as pd

from vitbench.analysis import statistics
from vitbench.analysis.labels import numbers as labels
from vitbench.analysis.results import Results
from vitbench.records.labels import entropy

_MAX_NAMED = 6


def findings(results: Results) -> list[str]:
    """What the labels table supports; empty where no labels are compared."""
    rows = labels.chosen(results)
    if rows.empty:
        return []
    table = labels.summary(rows)
    fair = (
        _matched(rows, table) if labels.is_matched(rows) else [_raw(rows, table), _corrected(table)]
    )
    return [text for text in (*fair, _claims(rows), *_disagreement(table)) if text]


def limits(results: Results) -> list[str]:
    """What a comparison of labels cannot say."""
    rows = labels.chosen(results)
    if rows.empty:
        return []
    said = []
    if not labels.is_matched(rows):
        said.append(
            "The labels differ in base rate and so in how many examples of each side there are; "
            "dividing by H(p) corrects the loss of a constant answer, not the lack of examples. "
            "train.matched gives every label the same numbers."
        )
    noise = results.environment.get("label_noise")
    if noise:
        ceilings = ", ".join(
            f"{label}: {1 - entropy(noise) / part['constant_bce'].astype(float).mean():.2f}"
            for label, part in list(rows.groupby("label", sort=False))[:_MAX_NAMED]
        )
        said.append(
            f"{100 * noise:g} % of the labels are wrong on purpose, so no model can gain all "
            f"information; the most that can be gained is about 1 - H({noise:g})/H(p): {ceilings}."
        )
    else:
        said.append(
            "How consistently people would give these labels is not measured; a label that is "
            "annotated with errors looks harder, and the rarer it is the more so."
        )
    if results.dataset == "faces":
        said.append(
            "The faces are drawn, not photographed: the experiment is the same as on CelebA, its "
            "numbers are not CelebA's."
        )
    return said


def _raw(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """The paper's ranking, beside the loss of a model that has learned nothing."""
    part = table[table["measure"] == "train_loss"].set_index("label")["mean"]
    if part.empty:
        return ""  # models of all labels have one training loss for all of them
    constant = rows.groupby("label", sort=False)["train_base_rate"].first().map(entropy)
    named = labels.order(table, "train_loss")
    ends = ", ".join(f"{x}: {part[x]:.3g}" for x in named[:_MAX_NAMED])
    free = ", ".join(f"{x}: {constant[x]:.3g}" for x in named[:_MAX_NAMED])
    return (
        f"Training loss, from the easiest label to the hardest: {ends} nats. But base rates alone "
        f"give, without looking at an image: {free}."
    )


def _corrected(table: pd.DataFrame) -> str:
    """The ranking after division by H(p)."""
    part = table[table["measure"] == labels.HEADLINE].set_index("label")["mean"]
    named = labels.order(table, labels.HEADLINE)
    shares = ", ".join(f"{x}: {part[x]:.3g}" for x in named[:_MAX_NAMED])
    raw = labels.order(table, "train_loss")
    verdict = (
        ""
        if not raw
        else " The order stays."
        if named == raw
        else " The order is another one: the ranking by raw loss is not a ranking of difficulty."
    )
    return (
        f"Corrected for base rate (test cross entropy over that of the best constant answer, 1 is "
        f"nothing learned): {shares}.{verdict}"
    )


def _matched(rows: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """The headline: equal numbers of examples of both sides for every label."""
    part = table[table["measure"] == labels.HEADLINE].set_index("label")["mean"]
    named = labels.order(table, labels.HEADLINE)
    shares = ", ".join(f"{x}: {part[x]:.3g}" for x in named[:_MAX_NAMED])
    count = int(rows["matched"].iloc[0])
    return [
        f"With {count:,} training images with and {count:,} without each label (the matched "
        f"control: neither base rate nor sample size differs), test cross entropy over ln 2, from "
        f"the easiest label to the hardest: {shares}."
    ]


def _claims(rows: pd.DataFrame) -> str:
    found = labels.pairs(rows)
    tested = found[found["p"].notna()]
    if tested.empty:
        return (
            f"No label is claimed to be harder than another: fewer than {statistics.MIN_SEEDS} "
            f"seeds."
        )
    sure = tested[tested["claim"] == "greater"]
    pairs = int(tested["pairs"].min())
    if pairs < 6:
        return (
            f"Paired over {pairs} seeds; p is never below {2 / 2**pairs:g} with so few, so no "
            f"label is claimed to be harder than another."
        )
    named = "; ".join(
        f"{row['arm']} than {row['against']} (by {row['difference']:.3g}, p = {row['p']:.3g})"
        for row in sure.to_dict("records")[:_MAX_NAMED]
    )
    return (
        f"Paired over {pairs} seeds, harder at p < 0.05: {named or 'none'}; "
        f"{len(tested) - len(sure)} of {len(tested)} pairs are not told apart."
    )


def _disagreement(table: pd.DataFrame) -> list[str]:
    """A warning where measures put the labels in different orders."""
    others = [m for m in labels.MEASURES if m.column != labels.HEADLINE]
    head = labels.order(table, labels.HEADLINE)
    said = []
    for measure in others:
        tau = labels.agreement(table, labels.HEADLINE, measure.column)
        if math.isfinite(tau) and tau < 1.0:
            there = ", ".join(labels.order(table, measure.column)[:_MAX_NAMED])
            said.append(f"{measure.title} ({there}; Kendall's tau {tau:.2f})")
    if not said:
        return []
    return [
        f"The measures disagree. From the easiest, the corrected loss says "
        f"{', '.join(head[:_MAX_NAMED])}; otherwise: {'; '.join(said)}. Name the measure whenever "
        f"you call a label hard."
    ]
