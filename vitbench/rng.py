"""Named random streams: a seed and a name give a generator, whoever else draws."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for the stream `names` of `seed`.

    The same seed and names give the same stream on every machine of one device type; other names
    give an unrelated one. Nothing touches torch's global seed.
    """
    text = "\x1f".join([str(seed), *map(str, names)])
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
    return torch.Generator(device=device).manual_seed(number)
