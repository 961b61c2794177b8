"""Images of the user's: a function that returns arrays, called once and kept in the cache.

    dataset: {build: "mydata:load", args: {...}}

`load(*, image_size, **args)` returns a mapping: `train`, `val` and `test`, each (images, targets),
uint8 [N, C, Y, X] and whole numbers [N], and perhaps `classes`, their names. With `labels`, the
names of attributes, targets are 0 or 1, [N, labels]. Images of another size are resized.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitbench import user_code
from vitbench.config import Dataset
from vitbench.data.image_set import SPLITS, ImageSet, Split, resize
from vitbench.errors import UserError

_LAST_CLASS = 999_999


def key(dataset: Dataset) -> str:
    """Changes with the function's source, its arguments and the size."""
    asked = [dataset.build, dataset.args, dataset.source, dataset.image_size]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=repr).encode()).hexdigest()


def load(dataset: Dataset) -> ImageSet:
    """Call the function and check what it returns.

    Raises:
        UserCodeError: with its traceback, if it raises.
        UserError: if it returns something else than the contract says.
    """
    from vitbench.rng import seeded  # imports torch, which who only reads results need not

    assert dataset.build is not None
    place = f"dataset.build={dataset.build}"
    try:
        function = user_code.load(dataset.build)
        with seeded(0, "images"):
            made = function(image_size=dataset.image_size, **dataset.args)
    except UserError as error:
        raise type(error)(f"{place}: {error}") from error
    except (Exception, SystemExit) as error:  # whatever the user's function may throw
        raised = user_code.raised(f"loading images with {dataset.args or 'no args'}", error)
        raise user_code.UserCodeError(f"{place}: {raised}") from error
    try:
        return _checked(dataset, made)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def _checked(dataset: Dataset, made: Any) -> ImageSet:
    if not isinstance(made, Mapping) or not all(name in made for name in SPLITS):
        raise UserError("must return a mapping with train, val and test")
    labels = _names("labels", made.get("labels"))
    splits = {name: _split(name, made[name], len(labels)) for name in SPLITS}
    channels = {split.images.shape[1] for split in splits.values()}
    if len(channels) > 1:
        raise UserError(f"its splits have {sorted(channels)} channels; they must have the same")
    classes: tuple[str, ...] = ()
    if not labels:
        highest = max(int(split.targets.max()) for split in splits.values())
        classes = _names("classes", made.get("classes")) or tuple(map(str, range(highest + 1)))
        if highest >= len(classes):
            raise UserError(f"a target is {highest}, of {len(classes)} classes from 0")
        if len(classes) < 2:
            raise UserError("all targets are 0: there is nothing to tell apart")
    digest = hashlib.sha256(f"{dataset.image_size} {classes} {labels}".encode())
    resized = []
    for split in splits.values():
        digest.update(np.ascontiguousarray(split.images).tobytes())
        digest.update(np.ascontiguousarray(split.targets).tobytes())
        same = split.images.shape[2:] == (dataset.image_size, dataset.image_size)
        images = split.images if same else resize(split.images, dataset.image_size)
        resized.append(Split(images, split.targets))
    return ImageSet.of(
        str(dataset.build),
        resized,
        classes=classes,
        labels=labels or classes,
        checksum=digest.hexdigest(),
        source=f"images of {dataset.build} at {dataset.image_size}x{dataset.image_size} pixels",
    )


def _names(key: str, given: Any) -> tuple[str, ...]:
    """What the function calls its classes or labels; none where it leaves them out."""
    if given is None:
        return ()
    if not isinstance(given, list | tuple) or not all(isinstance(n, str) and n for n in given):
        raise UserError(f"{key} must be a list of names, and is {str(given)[:200]}")
    if len(set(given)) != len(given):
        raise UserError(f"{key} names {max(given, key=given.count)!r} twice")
    return tuple(given)


def _split(name: str, given: Any, labels: int) -> Split:
    """One part, its arrays as the contract has them."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise UserError(f"{name} must be (images, targets)")
    try:
        images, targets = (np.asarray(array) for array in given)
    except (ValueError, TypeError, RuntimeError) as error:  # torch refuses with the last
        raise UserError(f"images or targets of {name} are no arrays: {error}") from error
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(
            f"images of {name} are {images.dtype} {list(images.shape)}; they must be uint8 "
            f"[N, C, Y, X]"
        )
    if 0 in images.shape:
        raise UserError(f"images of {name} are {list(images.shape)}: there is nothing to see")
    if images.shape[2] != images.shape[3]:
        raise UserError(f"images of {name} are {images.shape[2]}x{images.shape[3]}, not square")
    wanted = (len(images), labels) if labels else (len(images),)
    if targets.shape != wanted or targets.dtype.kind not in "iu":
        raise UserError(
            f"targets of {name} are {targets.dtype} {list(targets.shape)}; they must be whole "
            f"numbers {list(wanted)}"
        )
    if targets.min() < 0 or targets.max() > (1 if labels else _LAST_CLASS):
        raise UserError(
            f"targets of {name} run from {targets.min()} to {targets.max()}; they must "
            f"{'be 0 or 1' if labels else f'begin at 0 and end by {_LAST_CLASS:,}'}"
        )
    return Split(images, targets.astype(np.int64).reshape(len(images), -1))
