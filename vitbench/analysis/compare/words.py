"""A comparison of results folders in sentences: what was found, and what it cannot tell."""

from __future__ import annotations

from dataclasses import dataclass, field

from vitbench.analysis.compare.numbers import BEST, METRICS, Comparison, Side
from vitbench.analysis.findings.pairs import MIN_SEEDS_TO_CLAIM, smallest_p

# Settings of a sweep file that say how it is run and searched, not what a model is.
_RUNNING = (
    "name", "search.", "stack", "resources.", "budget.", "checkpoints.", "attention.", "exports",
    "max_failures", "target_accuracy", "scale", "train.seed",
)  # fmt: skip
_MAX_NAMED = 6


@dataclass
class Conclusions:
    """Sentences: what was found, and what the comparison cannot tell."""

    findings: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)


def words(found: Comparison) -> Conclusions:
    """Findings, and what the comparison cannot tell."""
    said = Conclusions()
    said.findings.append(_what_differs(found))
    for side in found.sides:
        if side.best is None:
            continue
        row = found.outcomes[
            (found.outcomes["folder"] == side.letter) & (found.outcomes["setting"] == side.best)
        ].iloc[0]
        said.findings.append(
            f"Lowest mean validation loss of {side.letter}: {side.best} ({row['val_loss']:.4g} "
            f"over {row['seeds']} seed{'s' if row['seeds'] != 1 else ''})."
        )
        gone = found.outcomes[
            (found.outcomes["folder"] == side.letter) & (found.outcomes["diverged"] > 0)
        ]
        if len(gone):
            named = "; ".join(
                f"{row['setting']} ({row['diverged']} of {row['trials']})"
                for row in gone.head(_MAX_NAMED).to_dict("records")
            )
            said.findings.append(
                f"Diverged in {side.letter}: {named}. The loss before training stands in for them."
            )
    said.findings += [_pairs(found, side) for side in found.sides[1:]]
    _limits(found, said)
    return said


def changed_settings(found: Comparison) -> list[str]:
    """Keys of the sweep file that differ and change what a model is or how it trains.

    Settings that vary within a folder are left out: those are compared value by value.
    """
    rows = found.differences[found.differences["kind"] == "setting"]
    keys = [key for key in rows["what"] if not key.startswith(_RUNNING)]
    return [key for key in keys if key.split(".")[-1] not in found.names]


def _what_differs(found: Comparison) -> str:
    table = found.differences
    keys = changed_settings(found)
    parts = []
    if keys:
        rows = table[table["what"].isin(keys)].head(_MAX_NAMED).to_dict("records")
        shown = [
            f"{row['what']} ({', '.join(f'{s.letter}: {row[s.letter]}' for s in found.sides)})"
            for row in rows
        ]
        rest = len(keys) - len(rows)
        parts.append("; ".join(shown) + (f"; and {rest} more" if rest else ""))
    else:
        parts.append("no setting of the model or its training")
    for kind, text in (("code", "versions of the code"), ("data", "the images")):
        if (table["kind"] == kind).any():
            parts.append(text)
    return f"What differs: {'; '.join(parts)}."


def _pairs(found: Comparison, side: Side) -> str:
    rows = found.paired[(found.paired["folder"] == side.letter) & (found.paired["setting"] != BEST)]
    against, what = found.sides[0].letter, METRICS[found.metric]
    who = f"{side.letter} against {against}"
    if rows.empty:
        return f"{who}: no setting and seed in common, so nothing is paired setting by setting."
    pairs = int(rows["pairs"].max())
    count = f"{len(rows)} setting{'s' if len(rows) != 1 else ''} in common"
    lower, higher = (int((rows["claim"] == claim).sum()) for claim in ("less", "greater"))
    if pairs < MIN_SEEDS_TO_CLAIM:
        return (
            f"{who}: {count}, with at most {pairs} seed{'s' if pairs != 1 else ''} in both; p is "
            f"never below {smallest_p(pairs):.2g} with so few, so no difference is claimed."
        )
    return (
        f"{who}, {count}, paired over at most {pairs} seeds: {what} is lower in {lower}, higher "
        f"in {higher} (adjusted p < 0.05 over all {len(found.paired)} comparisons), not told apart "
        f"in {len(rows) - lower - higher}."
    )


def _limits(found: Comparison, said: Conclusions) -> None:
    kinds = set(found.differences["kind"])
    partial = [side.letter for side in found.sides if side.results.partial]
    if partial:
        said.limits.append(
            f"{' and '.join(partial)}: not complete; its trials without an end are left out, and "
            f"a setting may stand on fewer seeds than it will have."
        )
    for side in found.sides:
        gone = side.results.trials["status"].isin(["stopped", "crashed", "oom", "budget"]).sum()
        if gone:
            said.limits.append(
                f"{gone} trials of {side.letter} did not come to an end of their own (stopped "
                f"early, failed, or out of budget) and are left out."
            )
    keys = changed_settings(found)
    if "data" in kinds:
        said.limits.append(
            "The images are not the same (see their checksums): differences are those of the "
            "images as well, and a seed no longer means the same batches."
        )
    if len(keys) > 1:
        said.limits.append(
            f"{len(keys)} settings differ between the folders: a difference belongs to all of "
            f"them together, not to one."
        )
    dirty = [s.letter for s in found.sides if s.results.environment.get("git_dirty")]
    if "code" in kinds:
        said.limits.append("The code or its packages differ: that alone can move a number.")
    elif dirty:
        said.limits.append(
            f"{' and '.join(dirty)} ran with uncommitted changes: the same commit need not be "
            f"the same code."
        )
    if "machine" in kinds:
        said.limits.append(
            "The machines differ: times cannot be compared, and rounding differs in the last "
            "digits."
        )
    if found.repeated:
        said.limits.append(
            f"Not paired, since a folder has several trials of one seed there: "
            f"{'; '.join(found.repeated[:_MAX_NAMED])}."
        )
    if (found.paired["setting"] == BEST).any():
        said.limits.append(
            "The best of each folder was picked on the same seeds that are paired, which "
            "flatters both."
        )
    most = int(found.paired["pairs"].max()) if len(found.paired) else 0
    if most < MIN_SEEDS_TO_CLAIM:
        said.limits.append(
            f"{most} seeds in common at most: nothing is claimed; {MIN_SEEDS_TO_CLAIM} seeds "
            f"(--seeds {MIN_SEEDS_TO_CLAIM}) can give p < 0.05 for any number of settings."
        )
    if len({label for side in found.sides for label in side.ended["label"].fillna("")}) > 1:
        said.limits.append(
            "Models learned different labels, whose losses cannot be compared as they stand: only "
            "settings of the same label are."
        )
