"""Drawn faces with some of CelebA's attributes: a stand-in where CelebA is not at hand.

What a picture shows (`truth`) and what its labels say (`attributes`) differ by label noise of a
known rate, and the landmarks are exact. The faces are drawings: they stand in for CelebA in tests
and short runs, and nothing measured on them is a statement about CelebA.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vitbench import hardware
from vitbench.data.faces.drawing import draw_face

# CelebA's share of positives among its 202,599 annotations, for the attributes drawn here.
BASE_RATES: Mapping[str, float] = MappingProxyType(
    {
        "Arched_Eyebrows": 0.267,
        "Bags_Under_Eyes": 0.205,
        "Bangs": 0.152,
        "Big_Lips": 0.241,
        "Black_Hair": 0.239,
        "Blond_Hair": 0.148,
        "Blurry": 0.051,
        "Brown_Hair": 0.205,
        "Bushy_Eyebrows": 0.142,
        "Eyeglasses": 0.065,
        "Goatee": 0.063,
        "Gray_Hair": 0.042,
        "Mouth_Slightly_Open": 0.483,
        "Mustache": 0.042,
        "Narrow_Eyes": 0.115,
        "No_Beard": 0.835,
        "Pale_Skin": 0.043,
        "Rosy_Cheeks": 0.066,
        "Smiling": 0.482,
        "Straight_Hair": 0.208,
        "Wavy_Hair": 0.320,
        "Wearing_Earrings": 0.189,
        "Wearing_Hat": 0.048,
        "Wearing_Lipstick": 0.472,
    }
)
ATTRIBUTES: tuple[str, ...] = tuple(BASE_RATES)  # in CelebA's order, which is the alphabet's
LANDMARKS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
VERSION = 2  # of the drawings: raised with every change that one can see, so that caches notice
NOISE = 0.02  # share of labels that are flipped, unless told otherwise

# Drawn so that the annotations, flips of the standard rate included, have CelebA's rates:
# p = q (1 - e) + (1 - q) e, solved for q.
DRAWN_RATES: Mapping[str, float] = MappingProxyType(
    {name: (rate - NOISE) / (1 - 2 * NOISE) for name, rate in BASE_RATES.items()}
)

# At most one of each group is true.
_EXCLUSIVE = (
    ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"),
    ("Straight_Hair", "Wavy_Hair"),
    ("Goatee", "Mustache", "No_Beard"),  # none of them: a full beard
)
_CHUNK = 250  # images that a worker draws before it reports


@dataclass(frozen=True)
class Faces:
    """Drawn faces.

    Attributes:
        images: uint8 [N, 3, Y, X].
        attributes: int64 [N, A] of 0 and 1, as annotated: with label noise.
        truth: int64 [N, A], as drawn.
        landmarks: float32 [N, 5, 2], (x, y) in pixels; the first pixel reaches from 0 to 1.
    """

    images: NDArray[np.uint8]
    attributes: NDArray[np.int64]
    truth: NDArray[np.int64]
    landmarks: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)


def draw(
    count: int,
    size: int | tuple[int, int] = 32,
    *,
    seed: int = 0,
    start: int = 0,
    noise: float | Mapping[str, float] = NOISE,
    force: Mapping[str, bool] | None = None,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Faces:
    """Draw faces number `start` to `start + count - 1` of a seed.

    Face i depends on the seed and on i alone, and is the same face at every size.

    Args:
        size: pixels per side, or (width, height), such as CelebA's (178, 218), of which a square
            picture is the middle.
        noise: the share of labels that are flipped, for all attributes or by name (others: none).
            Never changes a picture.
        force: attributes to draw so, whatever chance says; others stay as they are, but for those
            that cannot go with them. The labels follow before they are flipped.
        workers: processes that draw; by default one per core, and one for fewer than 2,000 faces.
        progress: called with the number of faces finished so far.

    Raises:
        ValueError: for unknown attributes, noise outside 0 to 0.5, or forced attributes that
            exclude each other.
    """
    width, height = (size, size) if isinstance(size, int) else size
    force = dict(force or {})
    rates = _noise_rates(noise)
    _check_force(force)
    jobs = [
        (seed, first, min(_CHUNK, start + count - first), width, height, rates, force)
        for first in range(start, start + count, _CHUNK)
    ]
    faces = Faces(
        images=np.empty((count, 3, height, width), dtype=np.uint8),
        attributes=np.empty((count, len(ATTRIBUTES)), dtype=np.int64),
        truth=np.empty((count, len(ATTRIBUTES)), dtype=np.int64),
        landmarks=np.empty((count, len(LANDMARKS), 2), dtype=np.float32),
    )
    done = 0
    for first, part in _draw_all(jobs, min(_worker_count(count, workers), len(jobs))):
        place = slice(first - start, first - start + len(part))
        faces.images[place], faces.attributes[place] = part.images, part.attributes
        faces.truth[place], faces.landmarks[place] = part.truth, part.landmarks
        done += len(part)
        if progress is not None:
            progress(done)
    return faces


_Job = tuple[int, int, int, int, int, NDArray[np.float64], dict[str, bool]]


def _draw_all(jobs: list[_Job], workers: int) -> Iterator[tuple[int, Faces]]:
    """Parts as they are finished, each with the number of its first face."""
    if workers <= 1:
        yield from map(_draw_part, jobs)
        return
    # Spawned, not forked: torch may be loaded, and its threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            for future in as_completed([pool.submit(_draw_part, job) for job in jobs]):
                yield future.result()
        finally:  # an interrupted caller does not wait for faces that nobody wants
            pool.shutdown(cancel_futures=True)


def _draw_part(job: _Job) -> tuple[int, Faces]:
    seed, first, count, width, height, rates, force = job
    images, attributes, truth, landmarks = [], [], [], []
    for index in range(first, first + count):
        choice, labels, picture = np.random.default_rng([seed, index]).spawn(3)
        has = _attributes(choice, force)
        image, marks = draw_face(picture, has, width, height)
        drawn = np.array([has[name] for name in ATTRIBUTES])
        images.append(image)
        landmarks.append(marks)
        truth.append(drawn)
        attributes.append(drawn ^ (labels.random(len(ATTRIBUTES)) < rates))
    return first, Faces(
        images=np.stack(images),
        attributes=np.stack(attributes).astype(np.int64),
        truth=np.stack(truth).astype(np.int64),
        landmarks=np.stack(landmarks),
    )


def _attributes(rng: np.random.Generator, force: Mapping[str, bool]) -> dict[str, bool]:
    """Which attributes a face has: independent but for those that exclude each other."""
    chance = dict(zip(ATTRIBUTES, rng.random(len(ATTRIBUTES)), strict=True))
    has = {name: bool(chance[name] < DRAWN_RATES[name]) for name in ATTRIBUTES}
    for group in _EXCLUSIVE:
        edges = np.cumsum([DRAWN_RATES[name] for name in group])
        chosen = int(np.searchsorted(edges, chance[group[0]], side="right"))
        wanted = [name for name in group if force.get(name)]
        for number, name in enumerate(group):
            has[name] = name in wanted if wanted else number == chosen
    has.update(force)
    return has


def _noise_rates(noise: float | Mapping[str, float]) -> NDArray[np.float64]:
    by_name = noise if isinstance(noise, Mapping) else dict.fromkeys(ATTRIBUTES, noise)
    _check_names(by_name, "noise")
    for name, rate in by_name.items():
        if not 0 <= rate < 0.5:
            raise ValueError(f"noise of {name} is {rate}; it must be at least 0 and below 0.5")
    return np.array([by_name.get(name, 0.0) for name in ATTRIBUTES])


def _check_force(force: Mapping[str, bool]) -> None:
    _check_names(force, "force")
    for group in _EXCLUSIVE:
        wanted = [name for name in group if force.get(name)]
        if len(wanted) > 1:
            raise ValueError(f"force: {' and '.join(wanted)} exclude each other; force one")


def _check_names(names: Mapping[str, object], place: str) -> None:
    if unknown := [name for name in names if name not in ATTRIBUTES]:
        raise ValueError(
            f"{place}: {', '.join(unknown)} cannot be drawn; use {', '.join(ATTRIBUTES)}"
        )


def _worker_count(count: int, workers: int | None) -> int:
    # A data loader's worker may not have children, and a program read from standard input is no
    # file that children could import.
    program = getattr(sys.modules["__main__"], "__file__", None)
    if multiprocessing.current_process().daemon or (program and not Path(program).exists()):
        return 1
    if workers is None:
        return hardware.cpu_count() if count >= 2_000 else 1
    return workers
