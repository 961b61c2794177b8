"""A comparison of results folders in sentences: what was found, and what it cannot tell."""

from __future__ import annotations

from dataclasses import dataclass

from vitbench.analysis.compare.numbers import BEST, METRICS, Comparison, Side
from vitbench.analysis.findings.pairs import MIN_SEEDS_TO_CLAIM, smallest_p
from vitbench.analysis.findings.render import plural

# Settings of a sweep file that say how it is run and searched, not what a model is.
_RUNNING = (
    "name", "search.", "stack", "resources.", "budget.", "checkpoints.", "attention.", "exports",
    "max_failures", "target_accuracy", "scale", "train.seed",
)  # fmt: skip
_MAX_NAMED = 6


@dataclass(frozen=True)
class Conclusions:
    """Sentences: what was found, and what the comparison cannot tell."""

    findings: list[str]
    limits: list[str]


def words(comparison: Comparison) -> Conclusions:
    """Findings, and what the comparison cannot tell."""
    best = [text for side in comparison.sides if side.best for text in _best(comparison, side)]
    pairs = [_pairs(comparison, side) for side in comparison.sides[1:]]
    return Conclusions([_what_differs(comparison), *best, *pairs], _limits(comparison))


def _best(comparison: Comparison, side: Side) -> list[str]:
    """The best setting of a folder, and which of its settings diverged."""
    rows = comparison.outcomes[comparison.outcomes["folder"] == side.letter]
    row = rows[rows["setting"] == side.best].iloc[0]
    told = [
        f"Lowest mean validation loss of {side.letter}: {side.best} ({row['val_loss']:.4g} over "
        f"{plural(row['seeds'], 'seed')})."
    ]
    gone = rows[rows["diverged"] > 0].head(_MAX_NAMED).to_dict("records")
    if gone:
        named = "; ".join(f"{r['setting']} ({r['diverged']} of {r['trials']})" for r in gone)
        told.append(
            f"Diverged in {side.letter}: {named}. The loss before training stands in for them."
        )
    return told


def changed_settings(comparison: Comparison) -> list[str]:
    """Keys of the sweep file that differ and change what a model is or how it trains.

    Settings that vary within a folder are left out: those are compared value by value.
    """
    rows = comparison.differences[comparison.differences["kind"] == "setting"]
    keys = [key for key in rows["what"] if not key.startswith(_RUNNING)]
    return [key for key in keys if key.split(".")[-1] not in comparison.names]


def _what_differs(comparison: Comparison) -> str:
    table, keys = comparison.differences, changed_settings(comparison)
    parts = [
        f"{row['what']} ({', '.join(f'{s.letter}: {row[s.letter]}' for s in comparison.sides)})"
        for row in table[table["what"].isin(keys)].head(_MAX_NAMED).to_dict("records")
    ] or ["no setting of the model or its training"]
    if len(keys) > _MAX_NAMED:
        parts.append(f"and {len(keys) - _MAX_NAMED} more")
    kinds = {"code": "versions of the code", "data": "the images"}
    parts += [text for kind, text in kinds.items() if (table["kind"] == kind).any()]
    return f"What differs: {'; '.join(parts)}."


def _pairs(comparison: Comparison, side: Side) -> str:
    rows = comparison.paired[
        (comparison.paired["folder"] == side.letter) & (comparison.paired["setting"] != BEST)
    ]
    who = f"{side.letter} against {comparison.sides[0].letter}"
    if rows.empty:
        return f"{who}: no setting and seed in common, so nothing is paired setting by setting."
    pairs = int(rows["pairs"].max())
    count = f"{plural(len(rows), 'setting')} in common"
    lower, higher = (int((rows["claim"] == claim).sum()) for claim in ("less", "greater"))
    if pairs < MIN_SEEDS_TO_CLAIM:
        return (
            f"{who}: {count}, with at most {plural(pairs, 'seed')} in both; p is never below "
            f"{smallest_p(pairs):.2g} with so few, so no difference is claimed."
        )
    return (
        f"{who}, {count}, paired over at most {pairs} seeds: {METRICS[comparison.metric]} is lower "
        f"in {lower}, higher in {higher} (adjusted p < 0.05 over all {len(comparison.paired)} "
        f"comparisons), not told apart in {len(rows) - lower - higher}."
    )


def _limits(comparison: Comparison) -> list[str]:
    kinds, keys = set(comparison.differences["kind"]), changed_settings(comparison)
    partial = [side.letter for side in comparison.sides if side.results.partial]
    dirty = [side.letter for side in comparison.sides if side.results.environment.get("git_dirty")]
    early = ("stopped", "crashed", "oom", "budget")
    cut = {s.letter: s.results.trials["status"].isin(early).sum() for s in comparison.sides}
    most = int(comparison.paired["pairs"].max()) if len(comparison.paired) else 0
    learned = {label for side in comparison.sides for label in side.ended["label"].fillna("")}
    told = [
        (partial, f"{' and '.join(partial)}: not complete; its trials without an end are left "
         f"out, and a setting may stand on fewer seeds than it will have."),
        *((count, f"{count} trials of {letter} did not come to an end of their own (stopped "
           f"early, failed, or out of budget) and are left out.") for letter, count in cut.items()),
        ("data" in kinds, "The images are not the same (see their checksums): differences are "
         "those of the images as well, and a seed no longer means the same batches."),
        (len(keys) > 1, f"{len(keys)} settings differ between the folders: a difference belongs "
         f"to all of them together, not to one."),
        ("code" in kinds, "The code or its packages differ: that alone can move a number."),
        (dirty and "code" not in kinds, f"{' and '.join(dirty)} ran with uncommitted changes: "
         f"the same commit need not be the same code."),
        ("machine" in kinds, "The machines differ: times cannot be compared, and rounding "
         "differs in the last digits."),
        (comparison.repeated, f"Not paired, since a folder has several trials of one seed there: "
         f"{'; '.join(comparison.repeated[:_MAX_NAMED])}."),
        ((comparison.paired["setting"] == BEST).any(), "The best of each folder was picked on the "
         "same seeds that are paired, which flatters both."),
        (most < MIN_SEEDS_TO_CLAIM, f"{most} seeds in common at most: nothing is claimed; "
         f"{MIN_SEEDS_TO_CLAIM} seeds (--seeds {MIN_SEEDS_TO_CLAIM}) can give p < 0.05 for any "
         f"number of settings."),
        (len(learned) > 1, "Models learned different labels, whose losses cannot be compared as "
         "they stand: only settings of the same label are."),
    ]  # fmt: skip
    return [text for holds, text in told if holds]
