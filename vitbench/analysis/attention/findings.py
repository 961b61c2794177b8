"""Findings on attention: its spread against the loss, and where models of a label look.

Where it looks is a contrast of labels: the lift of a region in the models of a label less the mean
of the other labels' models of the same seed, on the same images. All labels and regions are one
family. Whether a single model looks somewhere more than chance explains is not asserted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from vitbench.analysis.attention.association import associations, spread_data
from vitbench.analysis.findings.finding import Finding
from vitbench.analysis.findings.pairs import (
    MIN_SEEDS_TO_CLAIM,
    Contrast,
    Pair,
    adjusted,
    smallest_p,
)
from vitbench.analysis.labels import numbers as labels
from vitbench.analysis.results import Results

FAMILY = "attention regions"
LIFT = "_lift"


def findings(results: Results) -> list[Finding]:
    """What the attention of the trained models supports; empty where none was recorded."""
    data = spread_data(results)
    told = [] if data is None else associations(data)
    return told + looks(lifts(results))


def limits(results: Results) -> list[Finding]:
    """What the attention cannot tell."""
    folder = results.folder / "attention"
    told = []
    if (folder / "attention_summary.csv").is_file() and lifts(results).empty:
        told.append(Finding("limit_single_models"))
    spread, models = _spread(folder), labels.chosen(results)
    if len(spread) and len(models):
        without = int((~models["trial_id"].isin(spread["trial_id"])).sum())
        if without:
            told.append(Finding("limit_without_map", n=without))
    return told


def lifts(results: Results) -> pd.DataFrame:
    """Lift of each region by model of the labels' chosen settings: `label`, `seed`, lifts.

    Empty where labels are not compared, or lifts were not recorded (by earlier versions).
    """
    spread, chosen = _spread(results.folder / "attention"), labels.chosen(results)
    regions = [name for name in spread.columns if name.endswith(LIFT)]
    if not regions or chosen.empty or (chosen["task"] != "one label").any():
        return pd.DataFrame(columns=["label", "seed"])
    rows = chosen[["trial_id", "label", "seed"]].merge(spread[["trial_id", *regions]])
    return rows.drop(columns="trial_id")


def looks(rows: pd.DataFrame) -> list[Finding]:
    """Each label and region whose lift differs from the other labels', and how many do not.

    Args:
        rows: of `lifts`. Only seeds that every label has count.
    """
    regions = [name for name in rows.columns if name.endswith(LIFT)]
    names = [str(name) for name in rows["label"].unique()]
    if not regions or len(names) < 2:
        return []
    kept: list[tuple[str, str]] = []
    contrasts: list[Contrast] = []
    tables = {
        region: rows.pivot(index="seed", columns="label", values=region) for region in regions
    }
    seeds = set.intersection(*(set(table.dropna().index) for table in tables.values()))
    for region, table in tables.items():
        values = table.loc[sorted(seeds), names].astype(float)
        # Of two labels the one's difference is the other's with its sign turned.
        for label in names if len(names) > 2 else names[:1]:
            others = values.drop(columns=label).mean(axis=1)
            contrasts.append(
                Contrast(label, "", (values[label] - others).to_numpy(dtype=np.float64))
            )
            kept.append((label, region.removesuffix(LIFT).replace("_", " ")))
    if len(seeds) > 1:
        pairs = zip(adjusted(contrasts), kept, strict=True)
        apart = [(pair, *what) for pair, what in pairs if pair.told_apart]
    else:
        apart = []
    return [
        *(_look(pair, label, region, len(contrasts)) for pair, label, region in apart),
        Finding(
            kind="looks_unclear",
            n=len(seeds),
            facts={
                "contrasts": len(contrasts),
                "unclear": len(contrasts) - len(apart),
                "smallest_p": smallest_p(len(seeds)),
                "can_claim": len(seeds) >= MIN_SEEDS_TO_CLAIM,
                "seeds_needed": MIN_SEEDS_TO_CLAIM,
            },
        ),
    ]


def _look(pair: Pair, label: str, region: str, family: int) -> Finding:
    metric = f"{region.replace(' ', '_')}{LIFT}"
    facts = {"region": region, "contrasts": family}
    return pair.assertion("label_looks", FAMILY, metric, arms=(label,), facts=facts)


def _spread(folder: Path) -> pd.DataFrame:
    path = folder / "spread.csv"
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["trial_id"])
