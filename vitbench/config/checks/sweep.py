"""Rules that no single field can check: axes against their fields, shapes against each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from vitbench.config.axes import (
    ARGS,
    AXES,
    MODEL,
    axes_of,
    is_stackable,
    is_whole,
    models_of,
    setting_of,
)
from vitbench.config.checks import claims, models, numbers
from vitbench.config.models import LENGTHS, Dataset, Sweep
from vitbench.config.problems import Path, Problem, below, shorten, translate
from vitbench.config.search import EACH_EPOCH, Range, Search
from vitbench.words import did_you_mean, nearest

_SHAPES = ("width", "heads", "image_size", "patch_grid")


def problems(sweep: Sweep) -> list[Problem]:
    """Everything that is wrong with a sweep whose fields are right one by one."""
    of_axes = [
        *_axis_problems(sweep.search.space, ("search", "space")),
        *_axis_problems(sweep.search.inner, ("search", "inner")),
    ]
    independent = [
        *of_axes,
        *models.problems(sweep),
        *_search_problems(sweep.search),
        *numbers.model_problems(sweep.search),
        *_length_problems(sweep),
        *_dataset_problems(sweep.dataset),
        *_label_problems(sweep),
        *_patience_problems(sweep),
        *_loss_problems(sweep),
        *claims.problems(sweep, axes_are_right=not of_axes),
    ]
    # An axis that is wrong, and is no shape's, hides nothing of the shapes.
    names = {nearest(setting_of(str(p.path[2])), AXES) for p in of_axes}
    if independent and independent == of_axes and not names & {*_SHAPES, None, MODEL}:
        known = {*AXES, MODEL}
        space = {k: v for k, v in sweep.search.space.items() if setting_of(k) in known}
        search = sweep.search.model_copy(update={"space": space})
        return [*of_axes, *_shape_problems(sweep.model_copy(update={"search": search}))]
    return independent or [
        *_shape_problems(sweep),
        *_batch_problems(sweep),
        *_compile_problems(sweep),
        *_rung_problems(sweep),
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
        setting = setting_of(name)
        if setting not in AXES and setting != MODEL and not setting.startswith(ARGS):
            fix = did_you_mean(setting, AXES)
            yield Problem(here, "", "there is no such setting", fix)
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
    setting = setting_of(name)
    if setting not in AXES:  # of a builder, which is asked before anything starts
        return
    field = AXES[setting].model_fields[setting]
    adapter: TypeAdapter[Any] = TypeAdapter(
        Annotated[field.annotation, field],  # type: ignore[arg-type]
        config=ConfigDict(strict=True, allow_inf_nan=False),
    )
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        yield replace(translate({**error.errors()[0], "loc": path}, Sweep), path=path)


def _range_problems(name: str, axis: Range, path: Path) -> Iterator[Problem]:
    wrong, whole = below(*path), is_whole(name, axis)
    if axis.low >= axis.high:
        shown = f"{axis.low:g}..{axis.high:g}"
        yield wrong((), shown, "low must be less than high", "swap or widen them")
        return
    if axis.log and axis.low <= 0:
        yield wrong(("low",), f"{axis.low:g}", "a log range must start above 0", "raise it")
    if axis.log and axis.step is not None:
        yield wrong(("step",), f"{axis.step:g}", "a log range has no step", "drop one")
    if whole and any(v is not None and v != int(v) for v in (axis.low, axis.high, axis.step)):
        rule = f"{name} is a whole number: so are the ends and the step of its range"
        yield wrong((), "", rule, "round them")
    for key, end in (("low", axis.low), ("high", axis.high)):
        value = int(end) if whole and end == int(end) else end
        yield from _value_problems(name, value, (*path, key))


def _search_problems(search: Search) -> Iterator[Problem]:
    wrong = below("search")
    for name, axis in search.space.items():
        if search.is_grid and isinstance(axis, Range):
            fix = "list the values, or use optuna"
            yield wrong(("space", name), "", "a grid has no ranges", fix)
        if name in search.inner:
            yield wrong(("inner", name), "", "is in space and in inner", "keep it in one of them")
    if search.is_grid and search.inner:
        fix = "move its axes to search.space, where a grid stacks them by itself"
        yield wrong(("inner",), "", "belongs to random and optuna searches", fix)
    if search.is_grid and search.scheduler == "asha":
        rule = "a grid is trained in full, so that its curves can be compared"
        yield wrong(("scheduler",), "asha", rule, "use method random or optuna, or none")
    stackable = [axis for axis in AXES if is_stackable(axis)]
    for name in search.inner:
        if setting_of(name) not in stackable:
            fix = f"name only {', '.join(stackable)}"
            yield wrong(("inner", name), "", "members of a stack cannot differ in it", fix)
    if not search.is_grid and not search.space:
        yield wrong(("space",), "", "a search needs something to search", "add an axis")
    if search.scheduler == "asha" and len(search.objectives) > 1:
        fix = "name one objective or use none"
        yield wrong(("scheduler",), "asha", "asha judges by one objective", fix)
    if search.scheduler == "asha" and search.objectives[0] not in EACH_EPOCH:
        rule = f"asha compares by epochs, and {search.objectives[0]} is known at the end alone"
        yield wrong(("scheduler",), "asha", rule, f"use {' or '.join(EACH_EPOCH)}, or none")
    if len(set(search.objectives)) < len(search.objectives):
        yield wrong(("objectives",), "", "an objective stands twice", "keep one")
    if "lr_sensitivity" in search.objectives and len(search.inner.get("lr", [])) < 3:
        rule = "lr_sensitivity needs learning rates to compare"
        yield wrong(("inner", "lr"), "", rule, "list at least three under search.inner.lr")


def _length_problems(sweep: Sweep) -> Iterator[Problem]:
    """How long models train, said twice; and numbers of images that `matched` already says."""
    axes, train = {**sweep.search.space, **sweep.search.inner}, sweep.train
    said = [n for n in LENGTHS if n in axes or (n in train.model_fields_set and getattr(train, n))]
    by_steps = "steps" in said
    path: Path = ("search", "space", "steps") if "steps" in axes else ("train", "steps")
    if len(said) > 1:
        yield Problem(
            path, "", "says how long models train, and so does epochs", "keep one of them"
        )
    if by_steps and sweep.search.scheduler == "asha":
        yield Problem(path, "", "asha counts epochs, which steps leave open", "use train.epochs")
    if "train_images" in axes and train.matched is not None:
        rule = "train.matched says how many images there are"
        yield Problem(("search", "space", "train_images"), "", rule, "use one of them")


# Data sets that each setting belongs to; `offline` may bring faces in.
_DATASET_SETTINGS = {
    "labels": ("celeba", "faces", "folder"),
    "split": ("celeba",),
    "count": ("faces",),
    "label_noise": ("faces",),
    "path": ("folder", "huggingface"),
    "channels": ("folder", "huggingface"),
}
_SUBSTITUTES = {"mnist": "digits", "celeba": "faces"}


def _dataset_problems(dataset: Dataset) -> Iterator[Problem]:
    """Settings of other data sets, a substitute that stands for nothing, labels named twice."""
    wrong = below("dataset")
    for name, sets in _DATASET_SETTINGS.items():
        value = getattr(dataset, name)
        if value is not None and not {dataset.name, dataset.offline} & set(sets):
            rule = f"belongs to {' and '.join(sets)}, not to {dataset.name}"
            yield wrong((name,), shorten(value), rule, "leave it out")
    if (dataset.name == "own") != (dataset.build is not None):
        rule = "is of build, and there is none" if dataset.build is None else "makes the images"
        key, value = ("name", "own") if dataset.build is None else ("build", dataset.build)
        yield wrong((key,), shorten(value), rule, "write `build: mydata:load` and no name")
    if dataset.args and dataset.build is None:
        yield wrong(("args",), "", "are of build, and there is none", "leave them out")
    if dataset.name == "folder" and dataset.path is None:
        yield wrong(("path",), "", "a folder needs a path", "add `path: FOLDER`")
    if dataset.name == "huggingface" and dataset.path is None:
        yield wrong(
            ("path",), "", "a data set of Hugging Face needs a path", "add `path: ORG/NAME`"
        )
    other = _SUBSTITUTES.get(dataset.name)
    if dataset.offline not in (None, other):
        fix = f"use {other}" if other else "leave it out"
        yield wrong(
            ("offline",), str(dataset.offline), f"does not stand in for {dataset.name}", fix
        )
    labels = dataset.labels or []
    for number, label in enumerate(labels):
        if label in labels[:number]:
            yield wrong(("labels", number), label, "stands twice", "keep one of them")


def _label_problems(sweep: Sweep) -> Iterator[Problem]:
    """Labels that the data set is not asked for, and matching without a label."""
    search, named = sweep.search, sweep.dataset.labels
    places: dict[Path, list[Any]] = {}
    for part, axis in (("space", search.space.get("label")), ("inner", search.inner.get("label"))):
        if isinstance(axis, list):
            places["search", part, "label"] = axis
    labels = next(iter(places.values()), [sweep.train.label])
    if sweep.train.matched is not None and None in labels:
        rule = "matches images with and without a label, and there is none"
        fix = "name labels, e.g. `search.space.label: [...]`"
        yield Problem(("train", "matched"), str(sweep.train.matched), rule, fix)
    for path, values in {("train", "label"): [sweep.train.label], **places}.items():
        for label in values:
            if named is not None and label is not None and label not in named:
                fix = did_you_mean(str(label), named)
                yield Problem(path, str(label), "is not among dataset.labels", fix)


def _shape_problems(sweep: Sweep) -> Iterator[Problem]:
    """Where a grid reaches a combination that cannot be built, or a search can reach nothing else.

    A random or optuna search may hold combinations that do not fit; they are passed over when
    they are suggested.
    """
    for name in models_of(sweep):
        model = sweep.model if name is None else sweep.models[name]
        if model.build is None:
            fixed = {**model.model_dump(), "image_size": sweep.dataset.image_size}
            space = {setting_of(axis): axis for axis, _ in axes_of(sweep.search.space, name)}
            section: Path = ("model",) if name is None else ("models", name)
            yield from _grid_of_shapes(sweep, fixed, space, section)


def _grid_of_shapes(
    sweep: Sweep, fixed: dict[str, Any], space: dict[str, str], section: Path
) -> Iterator[Problem]:
    """Of one ViT: its settings, the axes of those that vary, and where it stands in the file."""
    choices: dict[str, list[Any]] = {}
    for name in _SHAPES:
        axis: Any = sweep.search.space[space[name]] if name in space else [fixed[name]]
        if isinstance(axis, Range):
            axis = list(range(int(axis.low), int(axis.high) + 1, int(axis.step or 1)))
        choices[name] = list(axis)
    for small, large in (("heads", "width"), ("patch_grid", "image_size")):
        pairs = list(itertools.product(choices[small], choices[large]))
        bad = [(s, g) for s, g in pairs if g % s]
        if bad and (sweep.search.is_grid or len(bad) == len(pairs)):
            number, whole = bad[0]
            varies = small in space
            path: Path = ("search", "space", space[small]) if varies else (*section, small)
            fix = f"use one of {', '.join(map(str, divisors(whole)))}"
            yield Problem(path, str(number), f"does not divide {large}={whole}", fix)


def _patience_problems(sweep: Sweep) -> Iterator[Problem]:
    """Models of a search that end early, which its sampler would take for ones that ended."""
    axes = {**sweep.search.space, **sweep.search.inner}
    asked = "patience" in axes or sweep.train.patience is not None
    if asked and not sweep.search.is_grid:
        part = "space" if "patience" in sweep.search.space else "inner"
        path: Path = ("search", part, "patience") if "patience" in axes else ("train", "patience")
        rule = "is of a grid; a search stops whole suggestions"
        yield Problem(path, shorten(sweep.train.patience), rule, "use search.scheduler: asha")


def _loss_problems(sweep: Sweep) -> Iterator[Problem]:
    """Two ways to say what the gradient is of."""
    if sweep.train.loss is not None and sweep.train.label_smoothing:
        rule = "is of cross entropy, and `loss` is another one"
        shown = f"{sweep.train.label_smoothing:g}"
        yield Problem(("train", "label_smoothing"), shown, rule, "smooth in your own function")


def _batch_problems(sweep: Sweep) -> Iterator[Problem]:
    """Batches larger than the data set, or smaller than the workers that share one."""
    axis = sweep.search.space.get("batch_size", [sweep.train.batch_size])
    in_space = "batch_size" in sweep.search.space
    path: Path = ("search", "space") if in_space else ("train",)
    sizes = [axis.low] if isinstance(axis, Range) else axis
    sizes = [size for size in sizes if isinstance(size, int | float)]
    counts = sweep.search.space.get("train_images", [sweep.train.train_images])
    counts = [counts.low] if isinstance(counts, Range) else counts
    images = min((int(n) for n in counts if isinstance(n, int | float)), default=None)
    for size in sizes:
        if images is not None and not isinstance(axis, Range) and size > images:
            rule, fix = f"is larger than train_images={images}", f"use at most {images}"
            yield Problem((*path, "batch_size"), str(size), rule, fix)
    workers, gpus = sweep.resources.workers, sweep.resources.gpus
    if workers > 1 and gpus != "auto" and gpus != int(gpus):
        rule = f"each of {workers} workers needs GPUs of its own"
        yield Problem(("resources", "gpus"), f"{gpus:g}", rule, "use a whole number, or 0")
    smallest = min(sizes)
    if smallest < workers:
        rule = f"is more than batch_size={smallest:g}: some would have no image"
        fix = f"use at most {smallest:g} workers"
        yield Problem(("resources", "workers"), str(workers), rule, fix)


def _rung_problems(sweep: Sweep) -> Iterator[Problem]:
    """Epochs at which ASHA compares, but after which models are not evaluated."""
    search, path = sweep.search, ("train", "evaluate_every")
    axis = search.space.get("evaluate_every", [sweep.train.evaluate_every])
    if search.scheduler != "asha" or isinstance(axis, Range):
        return
    for every in axis:
        train = sweep.train.model_copy(update={"evaluate_every": every})
        rung = search.grace_epochs
        while rung < train.epochs and train.evaluates(rung):
            rung *= search.reduction_factor
        if rung < train.epochs:
            rule = f"asha compares after epoch {rung}, which is not evaluated"
            fix = "use 1, or grace_epochs and reduction_factor that give evaluated epochs alone"
            yield Problem(path, str(every), rule, fix)


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
