"""One thing that the results say, with everything that its sentence rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """A result of the analysis. Its sentence is made by a template from these fields alone.

    Attributes:
        kind: names the template of its sentence.
        family: findings that are corrected together; at most 5 % of families hold any false one.
        asserts: whether the sentence says that one thing is better, worse, higher, wider, first
            or associated, or that an order holds.
        arms: the arms that it is about, in words; the one that is said to be higher, worse or
            first stands first.
        metric: column that was compared; empty where none was.
        effect: estimate in units of the metric; None where there is none.
        low, high: 95 % interval of the effect.
        p: of this comparison alone.
        p_adjusted: over its family.
        n: seeds, labels or images that it rests on.
        facts: what else the template prints.
    """

    kind: str
    family: str = ""
    asserts: bool = False
    arms: tuple[str, ...] = ()
    metric: str = ""
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    n: int = 0
    facts: Mapping[str, object] = field(default_factory=dict)
