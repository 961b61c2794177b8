"""A comparison of results folders in sentences: what was found, and what it cannot tell."""

from __future__ import annotations

from vitbench.analysis import statistics
from vitbench.analysis.compare.numbers import BEST, METRICS, Comparison, Side
from vitbench.analysis.report.verdict import Verdict

# Settings of a sweep file that say how it is run and searched, not what a model is.
_RUNNING = (
    "name", "search.", "stack", "resources.", "budget.", "checkpoints.", "attention.", "exports",
    "max_failures", "target_accuracy", "scale", "train.seed",
)  # fmt: skip
_MAX_NAMED = 6


def words(found: Comparison) -> Verdict:
    """Findings, and what the comparison cannot tell."""
    said = Verdict()
    said.findings.append(_what_differs(found))
    for side in found.sides:
        row = found.outcomes[
            (found.outcomes["folder"] == side.letter) & (found.outcomes["setting"] == side.best)
        ].iloc[0]
        said.findings.append(
            f"Best of {side.letter} by validation loss: {side.best} ({row['val_loss']:.4g}, mean "
            f"over {row['seeds']} seed{'s' if row['seeds'] != 1 else ''})."
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
    if rows["p"].isna().all():
        return (
            f"{who}: {count}, with {pairs} seed{'s' if pairs != 1 else ''} in both: fewer than "
            f"three, so no difference is claimed."
        )
    lower, higher = (int((rows["claim"] == claim).sum()) for claim in ("less", "greater"))
    text = (
        f"{who}, {count}, paired over at most {pairs} seeds: {what} is lower in {lower}, higher "
        f"in {higher} (p < 0.05, exact sign-flip test), not told apart in "
        f"{len(rows) - lower - higher}"
    )
    if pairs < 6:
        text += f"; with {pairs} pairs p is never below {2 / 2**pairs:g}, so no claim is possible"
    return text + "."


def _limits(found: Comparison, said: Verdict) -> None:
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
    tested = int(found.paired["p"].notna().sum())
    if tested > 1:
        said.limits.append(
            f"{tested} comparisons: about {(1 - statistics.LEVEL) * tested:.1f} of them would "
            f"fall below 0.05 without any difference."
        )
    if found.paired.empty or found.paired["p"].isna().all():
        said.limits.append(
            "Fewer than three seeds in common: no interval is printed and nothing is claimed. "
            "--seeds 6 repeats a sweep with six."
        )
