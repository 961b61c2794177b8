"""Image files decoded once, on all cores, into memory-mapped arrays; interrupted work goes on.

The work lies in a folder that is not finished yet (see cache.cached):

    <split>_images.npy   uint8 [N, C, Y, X], filled chunk by chunk
    done.jsonl           chunks that are filled, and which of their files are missing or broken
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitbench.config import Dataset
from vitbench.data.image_set import SPLITS, ImageSet, Split
from vitbench.errors import UserError
from vitbench.hardware import cpu_count
from vitbench.words import did_you_mean, printable

Watch = Callable[[str, int, int], None]  # what is prepared, images done, images in all

DONE = "done.jsonl"
_CHUNK = 256
_CHUNKS_PER_FLUSH = 32
MOST_BYTES = 2**28  # of an image file
_MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26
# Pillow knows more, and starts Ghostscript for one of them.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_ORIENTATION = 0x0112  # in EXIF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A bomb is refused below; Pillow's warning would only be one line more.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class _Chunk(NamedTuple):
    """Pictures that were decoded together."""

    bad: list[tuple[int, str]]  # rows that failed, with the reason
    several: int  # files that hold more than one picture
    crc: int  # CRC-32 of the decoded pixels


@dataclass(frozen=True)
class Pictures:
    """Image files to decode, and what they show: N of each, as in Split and ImageSet."""

    name: str  # of the data set
    place: Path  # for messages
    files: Sequence[str]
    split: NDArray[np.str_]
    targets: NDArray[np.int64]
    labels: Sequence[str]
    read: Callable[[str], bytes]  # content of a file by name; called from several threads
    source: str
    classes: Sequence[str] = ()
    landmarks: NDArray[np.float32] | None = None
    channels: int = 3  # 1 for grey, 3 for colour
    crop: int | None = None  # side of the centre square that is kept, in the file's pixels, or all


def chosen_columns(
    wanted: Sequence[str] | None, known: Sequence[str], owner: str
) -> tuple[list[str], list[int]]:
    """The labels that a sweep asks for and their columns; all of them by default.

    Raises:
        UserError: for a label that is not there, with the nearest that is.
    """
    names = list(known if wanted is None else wanted)
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"dataset.labels: {owner} has no label {name!r}; {hint}")
    return names, [list(known).index(name) for name in names]


def build(
    pictures: Pictures, dataset: Dataset, folder: Path, watch: Watch | None = None
) -> ImageSet:
    """Decode pictures and put the image set together; files that are bad are left out.

    The arrays grow in `folder`, and what an earlier call has decoded there is used; `watch` is told
    of the progress.

    Raises:
        UserError: if too many files are missing or broken, or a split is left with none.
    """
    size = dataset.image_size
    rows = {split: np.flatnonzero(pictures.split == split) for split in SPLITS}
    images, bad, several = _decode_all(pictures, rows, size, folder, watch)
    reasons = list(bad.values())
    if len(reasons) > dataset.damaged_share * len(pictures.files):
        raise UserError(
            f"{pictures.place}: {len(reasons):,} of {len(pictures.files):,} image files are "
            f"missing or broken ({_first(reasons, 5)}), more than "
            f"dataset.damaged_share={dataset.damaged_share:g} allows; fetch them again, or allow "
            f"more to be left out"
        )
    source = pictures.source
    if reasons:
        files = f"image file{'s' * (len(reasons) > 1)}"
        source += f"; {len(reasons)} {files} left out ({_first(reasons, 3)})"
    if several:
        source += f"; {several:,} files hold several pictures, of which the first is used"
    settings = (pictures.name, size, list(pictures.classes), list(pictures.labels))
    digest = hashlib.sha256(repr(settings).encode())
    splits = []
    for split, here in rows.items():
        kept = ~np.isin(here, list(bad))
        if not kept.any():
            raise UserError(
                f"{pictures.place}: leaves no image for the {split} split; add images, or choose "
                f"another split"
            )
        marks = pictures.landmarks
        built = Split(
            images[split] if kept.all() else images[split][kept],
            pictures.targets[here[kept]],
            None if marks is None else marks[here[kept]],
        )
        splits.append(built)
        digest.update(np.ascontiguousarray(built.images).data)
        digest.update(np.ascontiguousarray(built.targets).data)
    return ImageSet.of(
        pictures.name,
        splits,
        classes=pictures.classes,
        labels=pictures.labels,
        checksum=digest.hexdigest(),
        source=source,
    )


def decode(
    content: bytes, size: int, channels: int, crop: int | None
) -> tuple[NDArray[np.uint8], bool]:
    """One image: upright, centre square, resized with an antialiased bilinear filter.

    A JPEG file is scaled down by 2, 4 or 8 while it is decoded, as far as that stays above `size`:
    libjpeg then leaves most of its work out. What is transparent is laid over white; 16 bits become
    8 by their range.

    Returns:
        The image, uint8 [C, Y, X], and whether the file holds further ones (an animation).

    Raises:
        Exception: any of Pillow's, if the content is no whole image, or its values have no known
            range.
    """
    with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
        width, height = opened.size
        if width * height > _MOST_PIXELS:
            raise ValueError(f"{width}x{height} pixels are more than {_MOST_PIXELS:,}")
        side = min(width, height) if crop is None else min(crop, width, height)
        mode = "L" if channels == 1 else "RGB"
        keep = -(-size * max(width, height) // side)
        opened.draft(mode, (keep, keep))  # does nothing where the file is no JPEG
        small = _in_eight_bits(opened).convert(mode)
        if (small.width > small.height) != (width > height):  # Pillow turns TIFF files by itself
            width, height = height, width
        # libjpeg's scale is exact; the last column and row may cover less than a whole pixel.
        scale = round(width / small.width)
        left, top = (width - side) // 2 / scale, (height - side) // 2 / scale
        box = (left, top, left + side / scale, top + side / scale)
        square = small.resize((size, size), Image.Resampling.BILINEAR, box=box)
        turn = _UPRIGHT.get(opened.getexif().get(_ORIENTATION, 1))
        pixels = np.asarray(square if turn is None else square.transpose(turn), dtype=np.uint8)
        several = bool(getattr(opened, "is_animated", False))
    return (pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)), several


def _in_eight_bits(picture: Image.Image) -> Image.Image:
    """The picture with 8 bits a channel and nothing transparent; `convert` would clip and drop."""
    picture.load()
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM"):
        return Image.fromarray(np.round(np.asarray(picture) / 257.0).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError("its values have no known range; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA"))
    return picture


def _decode_all(
    pictures: Pictures,
    rows: dict[str, NDArray[np.int64]],
    size: int,
    folder: Path,
    watch: Watch | None,
) -> tuple[dict[str, NDArray[np.uint8]], dict[int, str], int]:
    """Images of each split, which of all pictures are bad, with the reason, and how many animated.

    Pillow releases the interpreter while libjpeg works, so threads use all cores.
    """
    shapes = {split: (len(here), pictures.channels, size, size) for split, here in rows.items()}
    images = {split: _open(folder / f"{split}_images.npy", shapes[split]) for split in rows}
    chunks = [
        (split, range(start, min(start + _CHUNK, len(here))))
        for split, here in rows.items()
        for start in range(0, len(here), _CHUNK)
    ]

    def crc(number: int) -> int:
        split, places = chunks[number]
        return zlib.crc32(images[split][places.start : places.stop])

    done_file = folder / DONE
    known = {n: chunk for n, chunk in _read_done(done_file).items() if n in range(len(chunks))}
    done = {number: chunk for number, chunk in known.items() if chunk.crc == crc(number)}
    finished = sum(len(chunks[number][1]) for number in done)
    unsaved: list[str] = []

    def decode_chunk(number: int) -> _Chunk:
        split, places = chunks[number]
        bad, several = [], 0
        for place in places:
            row = int(rows[split][place])
            name = pictures.files[row]
            try:
                content = pictures.read(name)
                images[split][place], more = decode(content, size, pictures.channels, pictures.crop)
                several += more
            except (FileNotFoundError, KeyError):
                bad.append((row, f"{printable(name)}: missing"))
            except Exception as error:  # Pillow and zipfile report what is broken in many ways
                reason = getattr(error, "strerror", None) or str(error).partition("<")[0].strip()
                bad.append((row, f"{printable(name)}: {reason or type(error).__name__}"))
        return _Chunk(bad, several, crc(number))

    def save() -> None:
        for array in images.values():
            array.flush()
        with done_file.open("a", encoding="utf-8") as file:
            file.writelines(unsaved)
        unsaved.clear()

    with ThreadPoolExecutor(cpu_count()) as pool:
        waiting = [number for number in range(len(chunks)) if number not in done]
        running = {pool.submit(decode_chunk, number): number for number in waiting}
        try:
            for future in as_completed(running):
                number = running[future]
                done[number] = future.result()
                unsaved.append(json.dumps([number, *done[number]]) + "\n")
                finished += len(chunks[number][1])
                if len(unsaved) >= _CHUNKS_PER_FLUSH:
                    save()
                if watch is not None:
                    watch(f"decoding {pictures.place.name}", finished, len(pictures.files))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            save()
    failed = dict(one for number in sorted(done) for one in done[number].bad)
    return images, failed, sum(chunk.several for chunk in done.values())


def _read_done(path: Path) -> dict[int, _Chunk]:
    """What an interrupted call has decoded, by number; nothing where that was damaged since."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {
            int(number): _Chunk([(int(row), str(why)) for row, why in bad], int(several), int(crc))
            for number, bad, several, crc in lines
        }
    except (OSError, ValueError, TypeError):
        return {}


def _first(reasons: list[str], count: int) -> str:
    return "; ".join(reasons[:count]) + ("; ..." if len(reasons) > count else "")


def _open(path: Path, shape: tuple[int, ...]) -> Any:
    """A memory-mapped uint8 array: the one that is there, or a new one of zeros.

    Raises:
        OSError: if the disk has no room for all of it, on which writing would end the process.
    """
    array = None
    with contextlib.suppress(OSError, ValueError):  # there is none, or it is damaged
        array = np.lib.format.open_memmap(path, mode="r+")
    if array is None or array.shape != shape or array.dtype != np.uint8:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            error.filename = str(path)
            raise
    return array
