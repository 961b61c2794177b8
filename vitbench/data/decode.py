"""Image files decoded once, on all cores, into memory-mapped arrays; interrupted work goes on.

The work lies in a folder that is not finished yet (see cache.cached):

    <split>_images.npy   uint8 [N, C, Y, X], filled chunk by chunk
    done.npy             which chunks are filled
    bad.jsonl            files that are missing or broken, with the reason
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitbench.errors import UserError
from vitbench.hardware import cpu_count

Watch = Callable[[str, int, int], None]  # what is prepared, images done, images in all

_CHUNK = 256
_CHUNKS_PER_FLUSH = 32
_NAMED = 5  # bad files that a message names


@dataclass(frozen=True)
class Files:
    """Image files to decode.

    Attributes:
        place: for messages.
        names: file names of each split.
        read: content of a file by name; called from several threads.
        channels: 1 for grey, 3 for colour.
        crop: side of the centre square that is cut out before resizing, in pixels of the file; the
            shorter side if None.
        damaged_share: share of bad files above which nothing is prepared.
    """

    place: Path
    names: dict[str, list[str]]
    read: Callable[[str], bytes]
    channels: int
    crop: int | None
    damaged_share: float


@dataclass(frozen=True)
class Decoded:
    """What came of it: images of each split, and the rows that hold no image, with the reason."""

    images: dict[str, NDArray[np.uint8]]
    bad: dict[str, dict[int, str]]


def decode_all(files: Files, size: int, folder: Path, watch: Watch | None = None) -> Decoded:
    """Decode every file into `folder`, going on where an earlier call was interrupted.

    Pillow releases the interpreter while libjpeg works, so threads use all cores.

    Raises:
        UserError: if more than `damaged_share` of the files are missing or broken; names some.
    """
    images = {
        split: _open(folder / f"{split}_images.npy", (len(names), files.channels, size, size))
        for split, names in files.names.items()
    }
    chunks = list(_chunks(files.names))
    done = _open(folder / "done.npy", (max(1, len(chunks)),))
    bad_file = folder / "bad.jsonl"
    total = sum(map(len, files.names.values()))
    waiting = [number for number in range(len(chunks)) if not done[number]]
    finished = total - sum(len(chunks[number][1]) for number in waiting)
    unsaved: list[int] = []

    def save() -> None:
        for array in images.values():
            array.flush()
        done[unsaved] = 1
        done.flush()
        unsaved.clear()

    with ThreadPoolExecutor(cpu_count()) as pool:
        running: dict[Future[list[tuple[int, str]]], int] = {}
        for number in waiting:
            split, rows = chunks[number]
            running[pool.submit(_decode_chunk, files, size, split, rows, images[split])] = number
        try:
            for future in as_completed(running):
                number = running[future]
                split, rows = chunks[number]
                with bad_file.open("a", encoding="utf-8") as lines:
                    for row, reason in future.result():
                        lines.write(json.dumps([split, row, reason]) + "\n")
                unsaved.append(number)
                finished += len(rows)
                if len(unsaved) >= _CHUNKS_PER_FLUSH:
                    save()
                if watch is not None:
                    watch(f"decoding {files.place.name}", finished, total)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            save()
    bad: dict[str, dict[int, str]] = {split: {} for split in files.names}
    for line in bad_file.read_text(encoding="utf-8").splitlines() if bad_file.is_file() else ():
        split, row, reason = json.loads(line)
        bad[split][row] = reason
    _check(files, bad, total)
    return Decoded(dict(images), bad)


def decode(content: bytes, size: int, channels: int, crop: int | None) -> NDArray[np.uint8]:
    """One image: centre square, resized with an antialiased bilinear filter, uint8 [C, Y, X].

    A JPEG file is scaled down by 2, 4 or 8 while it is decoded, as far as that stays above `size`:
    libjpeg then leaves most of its work out.

    Raises:
        OSError, ValueError, SyntaxError: if the content is no whole image (Pillow's errors).
    """
    with Image.open(io.BytesIO(content)) as opened:
        width, height = opened.size
        side = min(width, height) if crop is None else min(crop, width, height)
        mode = "L" if channels == 1 else "RGB"
        keep = -(-size * max(width, height) // side)
        opened.draft(mode, (keep, keep))  # does nothing where the file is no JPEG
        small = opened.convert(mode)
        # libjpeg's scale is exact; the last column and row may cover less than a whole pixel.
        scale = round(width / small.width)
        left, top = (width - side) // 2 / scale, (height - side) // 2 / scale
        box = (left, top, left + side / scale, top + side / scale)
        square = small.resize((size, size), Image.Resampling.BILINEAR, box=box)
        pixels = np.asarray(square, dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _decode_chunk(
    files: Files, size: int, split: str, rows: range, out: NDArray[np.uint8]
) -> list[tuple[int, str]]:
    """Decode some rows of a split; returns those that failed, with the reason."""
    bad = []
    for row in rows:
        name = files.names[split][row]
        try:
            out[row] = decode(files.read(name), size, files.channels, files.crop)
        except (FileNotFoundError, KeyError):
            bad.append((row, f"{name}: missing"))
        # Pillow reports broken files in all of these ways.
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            reason = str(error).partition("<")[0].strip() or type(error).__name__
            bad.append((row, f"{name}: {reason}"))
    return bad


def _chunks(names: dict[str, list[str]]) -> Iterator[tuple[str, range]]:
    for split, all_names in names.items():
        for start in range(0, len(all_names), _CHUNK):
            yield split, range(start, min(start + _CHUNK, len(all_names)))


def _open(path: Path, shape: Sequence[int]) -> Any:
    """A memory-mapped uint8 array: the one that is there, or a new one of zeros."""
    if path.is_file():
        return np.lib.format.open_memmap(path, mode="r+")
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=tuple(shape))


def _check(files: Files, bad: dict[str, dict[int, str]], total: int) -> None:
    reasons = [reason for rows in bad.values() for reason in rows.values()]
    if len(reasons) <= files.damaged_share * total:
        return
    named = "; ".join(reasons[:_NAMED]) + ("; ..." if len(reasons) > _NAMED else "")
    raise UserError(
        f"{files.place}: {len(reasons):,} of {total:,} image files are missing or broken "
        f"({named}), more than dataset.damaged_share={files.damaged_share:g} allows; fetch them "
        f"again, or allow more to be left out"
    )
