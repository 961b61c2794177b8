"""Rules of `claims`: arms that the sweep trains, and what each relation needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vitbench.config.axes import setting_of
from vitbench.config.claims import ATTENTION_METRICS, LABEL_METRICS, Arm, Claim
from vitbench.config.models import Sweep
from vitbench.config.problems import Path, Problem, below, shorten
from vitbench.config.search import Range
from vitbench.words import did_you_mean

_OF_FACES = {name for name in ATTENTION_METRICS if name not in ("effective_patches", "ink_lift")}


def problems(sweep: Sweep, *, axes_are_right: bool) -> Iterator[Problem]:
    """Everything that is wrong with the claims of a sweep, with the scale applied.

    Where the axes are not right, no arm is looked up there.
    """
    ids: list[str] = []
    for number, claim in enumerate(sweep.claims):
        path: Path = ("claims", number)
        if claim.id in ids:
            yield Problem((*path, "id"), claim.id, "stands twice", "give each claim its own id")
        ids.append(claim.id)
        yield from _relation_problems(claim, path)
        yield from _metric_problems(sweep, claim, path)
        if axes_are_right:
            yield from _setting_problems(sweep, claim, path)


def _relation_problems(claim: Claim, path: Path) -> Iterator[Problem]:
    """What the relation needs, and what belongs to another one."""
    wrong, relation = below(*path), claim.relation
    compares_two = relation in ("higher", "lower")
    if compares_two and not claim.than:
        rule = f"{relation} needs the arm to compare with"
        yield wrong(("than",), "", rule, "add `than: {setting: value}`")
    if claim.than and not compares_two:
        rule = f"belongs to higher and lower, not to {relation}"
        yield wrong(("than",), "", rule, "leave it out")
    against_number = relation in ("at_least", "at_most")
    if against_number and claim.value is None:
        yield wrong(
            ("value",), "", f"{relation} needs a number to compare with", "add `value: 0.9`"
        )
    if claim.value is not None and not against_number:
        rule = f"belongs to at_least and at_most, not to {relation}"
        yield wrong(("value",), f"{claim.value:g}", rule, "leave it out")
    if against_number and claim.margin:
        rule = "is what `value` already says"
        yield wrong(("margin",), f"{claim.margin:g}", rule, "change the value instead")
    for key in ("with_metric", "over"):
        value = getattr(claim, key)
        if relation == "associated" and value is None:
            yield wrong((key,), "", "is needed by associated", f"add `{key}:`")
        if relation != "associated" and value is not None:
            yield wrong((key,), value, f"belongs to associated, not to {relation}", "leave it out")
    arms = claim.of if isinstance(claim.of, list) else [claim.of]
    if relation == "associated":
        if claim.of:
            yield wrong(("of",), "", "associated names no arm", "leave it out; use `over`")
        if claim.margin:
            rule = "a correlation has no margin in units of the metric"
            yield wrong(("margin",), f"{claim.margin:g}", rule, "leave it out")
        if claim.with_metric == claim.metric:
            yield wrong(("with_metric",), claim.metric, "is the metric itself", "name another one")
        return
    if relation == "ordered":
        if not isinstance(claim.of, list) or len(arms) < 2:
            fix = "write e.g. `of: [{lr: 0.001}, {lr: 0.01}]`, the lowest metric first"
            yield wrong(("of",), "", "ordered needs a list of at least two arms", fix)
    elif isinstance(claim.of, list):
        yield wrong(("of",), "", f"{relation} is about one arm", "name one arm")
    if not claim.arms or not all(arms):
        yield wrong(("of",), "", "names no setting", "write e.g. `of: {lr: 0.001}`")
    elif len({frozenset(arm) for arm in claim.arms}) > 1:
        rule = "all arms of a claim name the same settings"
        yield wrong(("of",), "", rule, "name what they have in common in `where`")
    elif any(arm in claim.arms[:n] for n, arm in enumerate(claim.arms)):
        yield wrong(("of",), "", "an arm stands twice", "keep one of them")


def _metric_problems(sweep: Sweep, claim: Claim, path: Path) -> Iterator[Problem]:
    """Metrics that the sweep cannot give."""
    wrong, search = below(*path), sweep.search
    axis = search.space.get("label") or search.inner.get("label") or [sweep.train.label]
    learns_a_label = isinstance(axis, list) and any(label is not None for label in axis)
    for key in ("metric", "with_metric"):
        metric = getattr(claim, key)
        if metric in (*LABEL_METRICS, "extent") and not learns_a_label:
            rule = "is of models that learn one label, and there are none"
            yield wrong((key,), metric, rule, "name labels, e.g. `search.space.label: [...]`")
        if metric in ATTENTION_METRICS and not sweep.attention.top:
            rule = "is measured with the attention plates, and attention.top is 0"
            yield wrong((key,), metric, rule, "raise attention.top")
        has_faces = sweep.dataset.name in ("celeba", "faces")
        if metric in _OF_FACES and not has_faces:
            rule = f"is of a face's landmarks, and {sweep.dataset.name} has none"
            yield wrong((key,), metric, rule, "use dataset.name: celeba or faces")
        if metric == "ink_lift" and has_faces:
            rule = "is of what is bright in an image, and faces have landmarks instead"
            yield wrong((key,), metric, rule, "name a region of a face, e.g. eyes_lift")
        if metric == "extent" and "faces" not in (sweep.dataset.name, sweep.dataset.offline):
            rule = f"is known of drawn faces, not of {sweep.dataset.name}"
            yield wrong((key,), metric, rule, "use dataset.name: faces, or leave the claim out")


def _setting_problems(sweep: Sweep, claim: Claim, path: Path) -> Iterator[Problem]:
    """Settings that do not vary, and values that are not trained."""
    wrong = below(*path)
    compared = {name for arm in claim.arms for name in arm} | {claim.over}
    for name in claim.where:
        if name in compared:
            rule = "is what the claim compares, and the same in all arms"
            yield wrong(("where", name), "", rule, "keep it in one of them")
    if claim.tuned is not None and claim.tuned in compared | set(claim.where):
        rule = "is named by the claim, so there is nothing to choose"
        yield wrong(("tuned",), claim.tuned, rule, "leave it out")
    elif claim.tuned is not None:
        yield from _unknown(sweep, claim.tuned, (*path, "tuned"), claim.tuned)
    if claim.over is not None:
        yield from _unknown(sweep, claim.over, (*path, "over"), claim.over)
    of = claim.of if isinstance(claim.of, dict) else {}
    listed = claim.of if isinstance(claim.of, list) else []
    arms: dict[Path, Arm] = {("where",): claim.where, ("of",): of, ("than",): claim.than or {}}
    arms |= {("of", number): arm for number, arm in enumerate(listed)}
    axes = _axes(sweep)
    for place, arm in arms.items():
        for name, value in arm.items():
            unknown = list(_unknown(sweep, name, (*path, *place, name)))
            yield from unknown
            axis = axes.get(name)
            if unknown or axis is None:
                continue
            if isinstance(axis, Range):
                rule = "is searched in a range, which may never try this value"
                yield wrong((*place, name), shorten(value), rule, "list values in search.space")
            elif value not in axis:
                rule = f"is not among the values of {name} in this sweep"
                fix = f"use one of {', '.join(map(str, axis))}, or drop the claim "
                fix += "(--set claims=[] drops all)"
                yield wrong((*place, name), shorten(value), rule, fix)


def _unknown(sweep: Sweep, name: str, path: Path, value: str = "") -> Iterator[Problem]:
    """Whether a setting is no axis of the sweep, or is the seed."""
    axes = [axis for axis in _axes(sweep) if axis != "seed"]
    if name == "seed":
        yield Problem(path, value, "seeds are pairs, not arms", "leave it out")
    elif name not in axes:
        fix = did_you_mean(name, axes) if axes else "add it to search.space"
        yield Problem(path, value, "does not vary in this sweep", fix)


def _axes(sweep: Sweep) -> dict[str, list[Any] | Range]:
    """Values of each setting that varies, those of all models together."""
    axes: dict[str, list[Any] | Range] = {}
    for name, values in {**sweep.search.space, **sweep.search.inner}.items():
        known = axes.get(setting_of(name), [])
        both = isinstance(values, list) and isinstance(known, list)
        axes[setting_of(name)] = [*known, *values] if both else values
    return axes
