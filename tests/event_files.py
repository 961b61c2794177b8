"""Read TensorBoard's event files without TensorBoard."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def events(folder: Path) -> Iterator[Any]:
    """Events of a run, read from the record format: length, crc, bytes, crc."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.glob("events.out.tfevents.*")):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            yield Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) of a tag."""
    return [
        (e.step, v.simple_value) for e in events(folder) for v in e.summary.value if v.tag == tag
    ]
