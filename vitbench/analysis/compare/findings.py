"""Findings of a comparison of results folders, and what it cannot tell; as JSON, too."""

from __future__ import annotations

import functools
from typing import Annotated, Any, TypedDict

from vitbench.analysis.compare.numbers import BEST, METRICS, Comparison, Side
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import MIN_SEEDS_TO_CLAIM
from vitbench.analysis.findings.render import sentence
from vitbench.analysis.summary import FindingJson, findings_json
from vitbench.config.problems import shorten

FAMILY = "folders"
ONE_SETTING = "setting_differs"  # one finding per difference, which the page has in a table
# Settings of a sweep file that say how it is run and searched, not what a model is.
_RUNNING = (
    "name", "search.", "stack", "resources.", "budget.", "checkpoints.", "attention.", "exports",
    "max_failures", "target_accuracy", "scale", "train.seed", "claims",
)  # fmt: skip
_EARLY = ("stopped", "crashed", "oom", "budget")


class FolderJson(TypedDict):
    """One results folder of a comparison."""

    letter: Annotated[str, "what findings call it; A is the reference"]
    folder: Annotated[str, "as given"]
    name: Annotated[str, "its sweep and run"]
    dataset: Annotated[str, "data set that was really used"]
    scale: Annotated[str | None, "as chosen with --scale"]
    partial: Annotated[bool, "whether some trial has no end yet"]


class ComparisonJson(TypedDict):
    """The whole object."""

    folders: Annotated[list[FolderJson], "the folders, the reference first"]
    findings: Annotated[list[FindingJson], "what the folders support"]
    limits: Annotated[list[str], "what the comparison cannot tell, a sentence each"]


def as_json(comparison: Comparison) -> ComparisonJson:
    """The one JSON object that `vitbench compare A B --json` prints."""
    return {
        "folders": [
            {
                "letter": side.letter,
                "folder": str(side.results.folder),
                "name": side.name,
                "dataset": side.results.dataset,
                "scale": side.results.scale,
                "partial": side.results.partial,
            }
            for side in comparison.sides
        ],
        "findings": findings_json(findings(comparison)),
        "limits": [sentence(limit) for limit in limits(comparison)],
    }


def findings(comparison: Comparison) -> list[Finding]:
    """What differs, the best setting of each folder, and each folder against the first."""
    told = [_what_differs(comparison)]
    for side in comparison.sides:
        told += _best(comparison, side) if side.best else []
    for side in comparison.sides[1:]:
        told += _pairs(comparison, side)
    return told


def changed_settings(comparison: Comparison) -> list[str]:
    """Keys of the sweep file that differ and change what a model is or how it trains.

    Settings that vary within a folder are left out: those are compared value by value.
    """
    rows = comparison.differences[comparison.differences["kind"] == "setting"]
    keys = [key for key in rows["what"] if not key.startswith(_RUNNING)]
    return [key for key in keys if key.split(".")[-1] not in comparison.names]


def _what_differs(comparison: Comparison) -> Finding:
    table = comparison.differences.set_index("what")
    changed = table.loc[changed_settings(comparison), [side.letter for side in comparison.sides]]
    changed = changed.map(functools.partial(shorten, quoted=False))
    facts = {"settings": changed.to_dict("index"), "kinds": set(table["kind"])}
    return Finding("folders_differ", facts=facts)


def _best(comparison: Comparison, side: Side) -> list[Finding]:
    """The best setting of a folder, and which of its settings diverged."""
    rows = comparison.outcomes[comparison.outcomes["folder"] == side.letter]
    row = rows[rows["setting"] == side.best].iloc[0]
    mean, half = row["val_loss"], row["val_loss_half"]
    facts: dict[str, object] = {"folder": side.letter}
    told = [
        Finding("lowest_of_folder", arms=(row["setting"],), metric="val_loss", effect=mean,
                low=mean - half, high=mean + half, n=int(row["seeds"]), facts=facts)
    ]  # fmt: skip
    gone = rows[rows["diverged"] > 0]
    if len(gone):
        facts = facts | {"rows": gone.to_dict("records")}
        count = int(gone["diverged"].sum())
        told.append(Finding("folder_diverged", arms=tuple(gone["setting"]), n=count, facts=facts))
    return told


def _pairs(comparison: Comparison, side: Side) -> list[Finding]:
    """A folder against the first: how many settings are told apart, and each of those."""
    paired = comparison.paired
    rows = paired[(paired["folder"] == side.letter) & (paired["setting"] != BEST)]
    apart = rows[rows["claim"] != "none"]
    seeds = int(rows["pairs"].max()) if len(rows) else 0
    shared: dict[str, Any] = {"family": FAMILY, "metric": comparison.metric}
    letters = (side.letter, comparison.sides[0].letter)
    facts = {"folders": letters, "title": METRICS[comparison.metric]}
    count = {
        **facts,
        "settings": len(rows),
        "lower": int((rows["claim"] == "less").sum()),
        "higher": int((rows["claim"] == "greater").sum()),
        "identical": int(rows["identical"].sum()),
        "comparisons": len(paired),
    }
    worst = apart["p_adjusted"].max() if len(apart) else None
    told = [
        Finding("folder_pairs", **shared, asserts=len(apart) > 0, arms=letters, p_adjusted=worst,
                n=seeds, facts=count)
    ]  # fmt: skip
    for row in apart.to_dict("records"):
        numbers = {key: row[key] for key in ("low", "high", "p", "p_adjusted")}
        higher_first = letters if row["claim"] == "greater" else letters[::-1]
        told.append(
            Finding(ONE_SETTING, **shared, **numbers, asserts=True, n=row["pairs"],
                    arms=tuple(f"{letter}: {row['setting']}" for letter in higher_first),
                    effect=row["difference"], facts={**facts, "setting": row["setting"]})
        )  # fmt: skip
    return told


def other_images(comparison: Comparison) -> list[Finding]:
    """Where folders were trained on different images: said at the top of the page."""
    if "data" not in set(comparison.differences["kind"]):
        return []
    names = {side.letter: side.results.dataset for side in comparison.sides}
    facts = {"datasets": names, "same": len(set(names.values())) == 1}
    return [Finding("images_differ", arms=tuple(names), facts=facts)]


def limits(comparison: Comparison) -> list[Finding]:
    """What the comparison cannot tell."""
    sides, paired = comparison.sides, comparison.paired
    kinds, keys = set(comparison.differences["kind"]), changed_settings(comparison)
    partial = tuple(side.letter for side in sides if side.results.partial)
    dirty = tuple(side.letter for side in sides if side.results.environment.get("git_dirty"))
    cut = {side.letter: int(side.results.trials["status"].isin(_EARLY).sum()) for side in sides}
    most = int(paired["pairs"].max()) if len(paired) else 0
    learned = {label for side in sides for label in side.ended["label"].fillna("")}
    told = [
        (partial, Finding("limit_folders_partial", arms=partial)),
        *((n, Finding("limit_folder_cut", arms=(letter,), n=n)) for letter, n in cut.items()),
        ("data" in kinds, Finding("limit_other_images")),
        (len(keys) > 1, Finding("limit_many_settings", n=len(keys))),
        ("code" in kinds, Finding("limit_other_code")),
        (dirty and "code" not in kinds, Finding("limit_uncommitted", arms=dirty)),
        ("machine" in kinds, Finding("limit_other_machine")),
        (comparison.repeated, Finding("limit_repeated", arms=tuple(comparison.repeated))),
        ((paired["setting"] == BEST).any(), Finding("limit_picked_on_same_seeds")),
        (most < MIN_SEEDS_TO_CLAIM, Finding("limit_few_common_seeds", n=most)),
        (len(learned) > 1, Finding("limit_other_labels")),
    ]  # fmt: skip
    return [limit for holds, limit in told if holds]
