"""Named random streams: a seed and a name give a generator, whoever else draws."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def generator(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for the stream `names` of `seed`.

    The same seed and names give the same stream on every machine of one device type; other names
    give an unrelated one. Nothing touches torch's global seed.
    """
    text = "\x1f".join([str(seed), *map(str, names)])
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
    return torch.Generator(device=device).manual_seed(number)


@contextlib.contextmanager
def drawing_from(stream: torch.Generator) -> Iterator[None]:
    """Let code that draws from torch's global stream draw from this one, where it stands.

    Foreign modules know no other stream. Afterwards the global one is what it was.
    """
    shared = torch.default_generator
    if stream.device.type == "cuda":
        shared = torch.cuda.default_generators[stream.device.index or 0]
    before = shared.get_state()
    shared.set_state(stream.get_state())
    try:
        yield
    finally:
        stream.set_state(shared.get_state())
        shared.set_state(before)


@contextlib.contextmanager
def seeded(seed: int, *names: object) -> Iterator[None]:
    """Let all global streams (torch on the CPU, numpy, random) begin at a seed and a name."""
    stream = generator(seed, *names)
    python_before, numpy_before = random.getstate(), np.random.get_state()
    random.seed(stream.initial_seed())
    np.random.seed(stream.initial_seed() % 2**32)
    try:
        with drawing_from(stream):
            yield
    finally:
        random.setstate(python_before)
        np.random.set_state(numpy_before)
