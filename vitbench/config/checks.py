"""Rules that no single field can check: axes against their fields, shapes against each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from vitbench.config import claim_checks
from vitbench.config.models import AXES, Dataset, Sweep, is_stackable, is_whole
from vitbench.config.problems import Path, Problem, shorten, translate
from vitbench.config.search import Range, Search
from vitbench.words import did_you_mean


def problems(sweep: Sweep) -> list[Problem]:
    """Everything that is wrong with a sweep whose fields are right one by one."""
    of_axes = [
        *_axis_problems(sweep.search.space, ("search", "space")),
        *_axis_problems(sweep.search.inner, ("search", "inner")),
    ]
    found = [
        *of_axes,
        *_search_problems(sweep.search),
        *_dataset_problems(sweep.dataset),
        *_label_problems(sweep),
        *claim_checks.problems(sweep, axes_are_right=not of_axes),
    ]
    return found or [
        *_shape_problems(sweep),
        *_batch_problems(sweep),
        *_worker_problems(sweep),
        *_compile_problems(sweep),
    ]


def divisors(number: int) -> list[int]:
    """All whole numbers that divide `number`, smallest first."""
    return [d for d in range(1, number + 1) if number % d == 0]


def broken_shape_rule(*, heads: int, width: int, patch_grid: int, image_size: int) -> str | None:
    """The rule that a combination of shape settings breaks, or None."""
    if width % heads:
        return f"heads={heads} does not divide width={width}"
    if image_size % patch_grid:
        return f"patch_grid={patch_grid} does not divide image_size={image_size}"
    return None


def _axis_problems(axes: dict[str, Any], path: Path) -> Iterator[Problem]:
    for name, axis in axes.items():
        here = (*path, name)
        if name not in AXES:
            yield Problem(here, "", "there is no such setting", did_you_mean(name, AXES))
        elif isinstance(axis, Range):
            yield from _range_problems(name, axis, here)
        elif not axis:
            yield Problem(here, "[]", "an axis needs at least one value", "add values or drop it")
        else:
            for number, value in enumerate(axis):
                yield from _value_problems(name, value, (*here, number))
                if value in axis[:number] and type(value) is not bool:
                    rule = "stands twice in this axis"
                    yield Problem((*here, number), shorten(value), rule, "keep one of them")


def _value_problems(name: str, value: Any, path: Path) -> Iterator[Problem]:
    field = AXES[name].model_fields[name]
    adapter: TypeAdapter[Any] = TypeAdapter(
        Annotated[field.annotation, field],  # type: ignore[arg-type]
        config=ConfigDict(strict=True, allow_inf_nan=False),
    )
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        problem = translate({**first, "loc": path}, Sweep)
        yield Problem(path, problem.value, problem.rule, problem.fix)


def _range_problems(name: str, axis: Range, path: Path) -> Iterator[Problem]:
    whole = is_whole(name)
    if axis.low >= axis.high:
        shown = f"{axis.low:g}..{axis.high:g}"
        yield Problem(path, shown, "low must be less than high", "swap or widen them")
        return
    if axis.log and axis.low <= 0:
        yield Problem((*path, "low"), f"{axis.low:g}", "a log range must start above 0", "raise it")
    if axis.log and axis.step is not None:
        yield Problem((*path, "step"), f"{axis.step:g}", "a log range has no step", "drop one")
    if whole and any(v is not None and v != int(v) for v in (axis.low, axis.high, axis.step)):
        rule = f"{name} is a whole number: so are the ends and the step of its range"
        yield Problem(path, "", rule, "round them")
    for key in ("low", "high"):
        end = getattr(axis, key)
        value = int(end) if whole and end == int(end) else end
        yield from _value_problems(name, value, (*path, key))


def _search_problems(search: Search) -> Iterator[Problem]:
    path: Path = ("search",)
    for name, axis in search.space.items():
        if search.is_grid and isinstance(axis, Range):
            yield Problem(
                (*path, "space", name), "", "a grid has no ranges", "list the values, or use optuna"
            )
        if name in search.inner:
            yield Problem(
                (*path, "inner", name), "", "is in space and in inner", "keep it in one of them"
            )
    if search.is_grid and search.inner:
        fix = "move its axes to search.space, where a grid stacks them by itself"
        yield Problem((*path, "inner"), "", "belongs to random and optuna searches", fix)
    if search.is_grid and search.scheduler == "asha":
        rule = "a grid is trained in full, so that its curves can be compared"
        yield Problem((*path, "scheduler"), "asha", rule, "use method random or optuna, or none")
    for name in search.inner:
        if name in AXES and not is_stackable(name):
            stackable = ", ".join(axis for axis in AXES if is_stackable(axis))
            rule = "members of a stack cannot differ in it"
            yield Problem((*path, "inner", name), "", rule, f"name only {stackable}")
    if not search.is_grid and not search.space:
        yield Problem((*path, "space"), "", "a search needs something to search", "add an axis")
    if search.scheduler == "asha" and len(search.objectives) > 1:
        rule = "asha judges by one objective"
        yield Problem((*path, "scheduler"), "asha", rule, "name one objective or use none")
    if len(set(search.objectives)) < len(search.objectives):
        yield Problem((*path, "objectives"), "", "an objective stands twice", "keep one")
    if "lr_sensitivity" in search.objectives and len(search.inner.get("lr", [])) < 3:
        rule = "lr_sensitivity needs learning rates to compare"
        yield Problem((*path, "inner", "lr"), "", rule, "list at least three under search.inner.lr")


# Data sets that each setting belongs to; `offline` may bring faces in.
_DATASET_SETTINGS = {
    "labels": ("celeba", "faces", "folder"),
    "split": ("celeba",),
    "count": ("faces",),
    "label_noise": ("faces",),
    "path": ("folder",),
    "channels": ("folder",),
}
_SUBSTITUTES = {"mnist": "digits", "celeba": "faces"}


def _dataset_problems(dataset: Dataset) -> Iterator[Problem]:
    """Settings of other data sets, a substitute that stands for nothing, labels named twice."""
    path: Path = ("dataset",)
    used = {dataset.name, dataset.offline}
    for name, sets in _DATASET_SETTINGS.items():
        value = getattr(dataset, name)
        if value is not None and not used & set(sets):
            rule = f"belongs to {' and '.join(sets)}, not to {dataset.name}"
            yield Problem((*path, name), shorten(value), rule, "leave it out")
    if dataset.name == "folder" and dataset.path is None:
        yield Problem((*path, "path"), "", "a folder needs a path", "add `path: FOLDER`")
    if dataset.offline is not None and _SUBSTITUTES.get(dataset.name) != dataset.offline:
        other = _SUBSTITUTES.get(dataset.name)
        fix = f"use {other}" if other else "leave it out"
        rule = f"does not stand in for {dataset.name}"
        yield Problem((*path, "offline"), dataset.offline, rule, fix)
    for number, label in enumerate(dataset.labels or ()):
        if label in (dataset.labels or ())[:number]:
            yield Problem((*path, "labels", number), label, "stands twice", "keep one of them")


def _label_problems(sweep: Sweep) -> Iterator[Problem]:
    """Labels that the data set is not asked for, and matching without a label."""
    search, named = sweep.search, sweep.dataset.labels
    places: list[tuple[Path, list[Any]]] = [(("train", "label"), [sweep.train.label])]
    for part, axis in (("space", search.space.get("label")), ("inner", search.inner.get("label"))):
        if isinstance(axis, list):
            places.append((("search", part, "label"), axis))
    searched = [values for _, values in places[1:]]
    labels = searched[0] if searched else [sweep.train.label]
    if sweep.train.matched is not None and None in labels:
        rule = "matches images with and without a label, and there is none"
        fix = "name labels, e.g. `search.space.label: [...]`"
        yield Problem(("train", "matched"), str(sweep.train.matched), rule, fix)
    for path, values in places:
        for label in values:
            if named is not None and label is not None and label not in named:
                rule = "is not among dataset.labels"
                yield Problem(path, str(label), rule, did_you_mean(str(label), named))


def _shape_problems(sweep: Sweep) -> Iterator[Problem]:
    """Where a grid reaches a combination that cannot be built, or a search can reach nothing else.

    A random or optuna search may hold combinations that do not fit; they are passed over when
    they are suggested.
    """
    choices: dict[str, list[int]] = {}
    fixed = {**sweep.model.model_dump(), "image_size": sweep.dataset.image_size}
    for name in ("width", "heads", "image_size", "patch_grid"):
        axis = sweep.search.space.get(name)
        if isinstance(axis, Range):
            step = int(axis.step or 1)
            choices[name] = list(range(int(axis.low), int(axis.high) + 1, step))
        else:
            choices[name] = list(axis) if axis else [fixed[name]]  # type: ignore[arg-type]
    for small, large in (("heads", "width"), ("patch_grid", "image_size")):
        pairs = list(itertools.product(choices[small], choices[large]))
        bad = [(s, g) for s, g in pairs if g % s]
        if not bad or (not sweep.search.is_grid and len(bad) < len(pairs)):
            continue
        number, whole = bad[0]
        in_space = small in sweep.search.space
        path: Path = ("search", "space", small) if in_space else ("model", small)
        works = ", ".join(str(d) for d in divisors(whole))
        yield Problem(path, str(number), f"does not divide {large}={whole}", f"use one of {works}")


def _batch_problems(sweep: Sweep) -> Iterator[Problem]:
    sizes = sweep.search.space.get("batch_size", [sweep.train.batch_size])
    images = sweep.train.train_images
    if images is None or isinstance(sizes, Range):
        return
    for size in sizes:
        if isinstance(size, int) and size > images:
            rule = f"is larger than train_images={images}"
            in_space = "batch_size" in sweep.search.space
            path: Path = ("search", "space") if in_space else ("train",)
            fix = f"use at most {images}"
            yield Problem((*path, "batch_size"), str(size), rule, fix)


def _worker_problems(sweep: Sweep) -> Iterator[Problem]:
    workers, gpus = sweep.resources.workers, sweep.resources.gpus
    if workers == 1:
        return
    if gpus != "auto" and gpus != int(gpus):
        rule = f"each of {workers} workers needs GPUs of its own"
        yield Problem(("resources", "gpus"), f"{gpus:g}", rule, "use a whole number, or 0")
    axis = sweep.search.space.get("batch_size", [sweep.train.batch_size])
    sizes = [axis.low] if isinstance(axis, Range) else axis
    smallest = min(size for size in sizes if isinstance(size, int | float))
    if smallest < workers:
        rule = f"is more than batch_size={smallest:g}: some would have no image"
        fix = f"use at most {smallest:g} workers"
        yield Problem(("resources", "workers"), str(workers), rule, fix)


def _compile_problems(sweep: Sweep) -> Iterator[Problem]:
    if sweep.compile is not True:
        return
    dropout = sweep.search.space.get("dropout", [sweep.model.dropout])
    if isinstance(dropout, Range) or any(dropout):
        rule = "models with dropout are not compiled: each draws from a stream of its own"
        yield Problem(("compile",), "true", rule, "use auto")
    if sweep.resources.workers > 1:
        rule = "models on several workers are not compiled"
        yield Problem(("compile",), "true", rule, "use auto, or one worker")
