"""Drawn faces with eight of CelebA's attributes: a stand-in where CelebA is not at hand.

What a picture shows (`truth`) and what its labels say (`attributes`) differ by label noise of a
known rate; landmarks and the regions that attributes change are exact. The faces are drawings:
nothing measured on them is a statement about CelebA.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vitbench import hardware
from vitbench.config import Dataset
from vitbench.data.decode import Watch, chosen_columns
from vitbench.data.image_set import ImageSet, Split
from vitbench.data.sets.faces.portrait import Portrait

# CelebA's share of positives among its 202,599 annotations, in its order, the alphabet's.
BASE_RATES: Final[Mapping[str, float]] = {
    "Blond_Hair": 0.148,
    "Eyeglasses": 0.065,
    "Mouth_Slightly_Open": 0.483,
    "Pale_Skin": 0.043,
    "Smiling": 0.482,
    "Wavy_Hair": 0.320,
    "Wearing_Hat": 0.048,
    "Wearing_Lipstick": 0.472,
}
ATTRIBUTES = tuple(BASE_RATES)
# Share of the picture that an attribute changes: the mean of `region` over 200 faces of 32x32.
EXTENTS: Final[Mapping[str, float]] = {
    "Blond_Hair": 0.266,
    "Eyeglasses": 0.074,
    "Mouth_Slightly_Open": 0.022,
    "Pale_Skin": 0.320,
    "Smiling": 0.052,
    "Wavy_Hair": 0.261,
    "Wearing_Hat": 0.180,
    "Wearing_Lipstick": 0.020,
}
VERSION = 3  # of the drawings: raised with every change that one can see, so that caches notice
COUNT = 20_000  # faces of the data set, unless told otherwise
NOISE = 0.02  # share of labels that are flipped, unless told otherwise

# Attributes are drawn so often that the labels, flips of the standard rate included, have CelebA's
# rates: p = q (1 - e) + (1 - q) e, solved for q.
_DRAWN_RATES = (np.array(list(BASE_RATES.values())) - NOISE) / (1 - 2 * NOISE)
_CHUNK = 250  # images that a worker draws before it reports
_Face = tuple[Any, ...]  # a row of each array of `Faces`


@dataclass(frozen=True)
class Faces:
    """Drawn faces.

    Landmarks are (x, y) in pixels: left eye, right eye, nose, left and right corner of the mouth;
    the first pixel reaches from 0 to 1.
    """

    images: NDArray[np.uint8]  # [N, 3, Y, X]
    attributes: NDArray[np.int64]  # [N, A] of 0 and 1, as annotated: with label noise
    truth: NDArray[np.int64]  # [N, A], as drawn
    landmarks: NDArray[np.float32]  # [N, 5, 2]


def key(dataset: Dataset) -> str:
    """Name of the prepared images; changes with the settings and the drawing's version."""
    count = dataset.count or COUNT
    settings = (dataset.image_size, dataset.labels, count, _noise(dataset), VERSION)
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


def load(dataset: Dataset, watch: Watch | None = None) -> ImageSet:
    """Draw the faces as a data set, on all cores: 80 % to train, 10 % each to validate and test.

    Raises:
        UserError: for a label that is not drawn.
    """
    count, size, noise = dataset.count or COUNT, dataset.image_size, _noise(dataset)
    names, columns = chosen_columns(dataset.labels, ATTRIBUTES, "faces")
    report = None if watch is None else lambda done: watch("drawing faces", done, count)
    drawn = draw(count, size, noise=noise, progress=report)
    targets, held_out = drawn.attributes[:, columns], round(count / 10)
    ends = (0, count - 2 * held_out, count - held_out, count)
    digest = hashlib.sha256(repr((size, names)).encode())
    digest.update(drawn.images.tobytes() + targets.tobytes())
    return ImageSet.of(
        "faces",
        [Split(drawn.images[a:b], targets[a:b], drawn.landmarks[a:b]) for a, b in pairwise(ends)],
        labels=names,
        checksum=digest.hexdigest(),
        source=f"faces ({count:,} drawn faces of {size}x{size} pixels, not photographs; "
        f"{f'{100 * noise:g} %' if noise else 'none'} of the labels are wrong on purpose)",
        label_noise=noise,
    )


def _noise(dataset: Dataset) -> float:
    return NOISE if dataset.label_noise is None else dataset.label_noise


def draw(
    count: int,
    size: int | tuple[int, int] = 32,
    *,
    seed: int = 0,
    start: int = 0,
    noise: float = NOISE,
    force: Mapping[str, bool] | None = None,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Faces:
    """Draw faces number `start` to `start + count - 1` of a seed.

    Face i depends on the seed and on i alone, and is the same face at every size.

    Args:
        count: faces, at least 1.
        size: pixels per side, or (width, height), such as CelebA's (178, 218), of which a square
            picture is the middle.
        noise: the share of labels that are flipped. Never changes a picture.
        force: attributes to draw so, whatever chance says; nothing else changes. The labels follow
            before they are flipped.
        workers: processes that draw; by default one per core, and one for fewer than 2,000 faces.
        progress: called with the number of faces finished so far.

    Raises:
        ValueError: for unknown attributes, or noise outside 0 to 0.5.
    """
    if not 0 <= noise < 0.5:
        raise ValueError(f"noise is {noise}; it must be at least 0 and below 0.5")
    forced = dict(force or {})
    if unknown := ", ".join(forced.keys() - BASE_RATES.keys()):
        raise ValueError(f"{unknown} cannot be drawn; use {', '.join(ATTRIBUTES)}")
    sides = (size, size) if isinstance(size, int) else size
    end = start + count
    jobs = [range(first, min(first + _CHUNK, end)) for first in range(start, end, _CHUNK)]
    if workers is None:
        workers = hardware.cpu_count() if count >= 2_000 else 1
    rows: list[_Face] = []
    for part in _map(partial(_draw, seed, sides, noise, forced), jobs, workers):
        rows += part
        if progress is not None:
            progress(len(rows))
    return Faces(*(np.stack(column) for column in zip(*rows, strict=True)))


def region(
    index: int, attribute: str, size: int | tuple[int, int] = 32, *, seed: int = 0
) -> NDArray[np.bool_]:
    """The pixels of face `index` that an attribute changes: bool [Y, X].

    Exactly those in which the same face with the attribute and without it differ. It depends on
    the face's other attributes (a hat hides hair), not on whether the face has this one.

    Raises:
        ValueError: for an unknown attribute.
    """
    with_it, without = (
        draw(1, size, seed=seed, start=index, force={attribute: value}).images[0]
        for value in (True, False)
    )
    return np.asarray((with_it != without).any(axis=0))


def _map(
    task: Callable[[range], list[_Face]], jobs: list[range], workers: int
) -> Iterator[list[_Face]]:
    """Results in order, from processes if there are several and the program can start them."""
    # A data loader's worker may not have children, and a program read from standard input is no
    # file that children could import.
    program = getattr(sys.modules["__main__"], "__file__", None)
    alone = multiprocessing.current_process().daemon or (program and not Path(program).exists())
    workers = min(workers, len(jobs))
    if workers <= 1 or alone:
        yield from map(task, jobs)
        return
    # Spawned, not forked: torch may be loaded, and its threads do not survive a fork. Ctrl-C is
    # this process's to see; leaving the block ends the workers.
    with multiprocessing.get_context("spawn").Pool(workers, _ignore_interrupts) as pool:
        yield from pool.imap(task, jobs)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _draw(
    seed: int, size: tuple[int, int], noise: float, force: dict[str, bool], numbers: range
) -> list[_Face]:
    rows = []
    for index in numbers:
        rng = np.random.default_rng([seed, index])
        chance, flip = rng.random((2, len(ATTRIBUTES)))
        has = dict(zip(ATTRIBUTES, (chance < _DRAWN_RATES).tolist(), strict=True)) | force
        truth = np.array([has[name] for name in ATTRIBUTES], dtype=np.int64)
        image, landmarks = Portrait(rng, has, size).draw()
        rows.append((image, truth ^ (flip < noise), truth, landmarks))
    return rows
