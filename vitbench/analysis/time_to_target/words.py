"""What the time to a stated accuracy says, as a table and in sentences."""

from __future__ import annotations

import math
from typing import Any

from vitbench.analysis.results import Results
from vitbench.analysis.statistics import MIN_SEEDS
from vitbench.analysis.time_to_target import numbers as speed

_MAX_ROWS = 60


def table(results: Results) -> list[dict[Any, Any]]:
    """A row per arm for the report, the fastest first; empty where no target is stated."""
    times = speed.times_of(results)
    return [] if times is None else speed.by_arm(times).head(_MAX_ROWS).to_dict("records")


def finding(results: Results) -> str:
    """The fastest arm in words; empty where no target is stated or nothing to compare."""
    times = speed.times_of(results)
    if times is None:
        return ""
    arms = speed.by_arm(times)
    if len(arms) < 2:
        return ""
    first = arms.iloc[0]
    goal = f"validation accuracy {results.target:g}"
    if not times["reached"].any():
        return f"No model reaches {goal} in its epochs, so nothing is said of speed."
    if not math.isfinite(first["epochs"]):
        return (
            f"{int(times['reached'].sum())} of {len(times)} models reach {goal}; no setting does "
            f"so with at least half of its models."
        )
    text = (
        f"Fastest to {goal} is {first['arm']}: {first['epochs']:g} epochs and "
        f"{first['seconds']:.3g} s of machine time per model (median over {first['trials']} "
        f"model{'s' if first['trials'] != 1 else ''}, {first['reached']} of which arrive)."
    )
    never = int((~arms["epochs"].map(math.isfinite)).sum())
    if never:
        text += f" {never} of {len(arms)} settings do not arrive with half of their models or more."
    found = speed.profile(speed.ratios(times))
    if not found.empty:
        top = found.iloc[0]
        text += (
            f" Over {top['workloads']} workloads (a model and a seed each) the best profile is "
            f"that of {top['arm']}, score {top['score']:.2f} of 1."
        )
    return text


def limit(results: Results) -> str:
    """What the times cannot say; empty where there are none."""
    if results.target is None or results.epochs.empty:
        return ""
    seeds = results.trials["seed"].nunique()
    parts = []
    if results.target_is_late:
        parts.append(
            f"The target accuracy {results.target:g} was stated after the sweep; a target that is "
            f"chosen with the curves in sight can favour any setting"
        )
    if seeds < MIN_SEEDS:
        parts.append(
            f"times to accuracy {results.target:g} rest on {seeds} seed{'s' if seeds != 1 else ''}"
            f" and are known to whole epochs only"
        )
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""
