"""Data sets that are damaged or odd: read as what they mean, or refused in one message.

Every case is refused as a `UserError`, which all commands turn into one message and code 2; the
file is named, nothing is cached, and nothing of the user's is changed.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celeba_layout import write_celeba_layout
from PIL import Image
from set_layouts import WRITE, idx, write_mnist
from test_damaged_results import content

from vitbench import data, sweep
from vitbench.attention import subject
from vitbench.config import Dataset
from vitbench.data.image_set import ImageSet
from vitbench.data.sets import mnist, own
from vitbench.errors import UserError

FOREVER = Path("/dev/zero")
UNREADABLE = Path("/proc/self/mem")  # a plain file that gives nothing but errors, to root too


def load(base: Path, cache: Path, **settings: Any) -> ImageSet:
    dataset = Dataset.model_validate({"image_size": 8, **settings})
    return data.load(data.resolve(dataset, base, download=False).dataset, base, cache)


def refused(base: Path, tmp_path: Path, **settings: Any) -> str:
    """Load what must be refused; returns the message."""
    before = content(base) if base.is_dir() else {}
    started_s = time.process_time()
    with pytest.raises(UserError) as caught:
        load(base, tmp_path / "cache", **settings)
    message = str(caught.value)
    assert time.process_time() - started_s < 10
    assert message.isprintable() and len(message) < 1500, message
    cached = tmp_path / "cache"
    assert not cached.is_dir() or not [p for p in cached.iterdir() if not p.name.startswith(".")]
    if before:
        assert content(base) == before
    return message


# --- Images ------------------------------------------------------------------------------------


def image(mode: str = "RGB", side: int = 12) -> Image.Image:
    ramp = np.linspace(0, 255, side * side).astype(np.uint8).reshape(side, side)
    return Image.fromarray(ramp).convert(mode)


def encoded(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **settings)
    return file.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


KINDS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
OTHERS = ("ICO", "TGA", "PCX", "EPS", "PDF", "SGI", "IM", "DDS", "JPEG2000", "ICNS")
WHOLE = {kind: encoded(image(side=40), kind) for kind in KINDS}
BYTES: dict[str, bytes] = {
    "nothing": b"",
    "one byte": b"\x89",
    "zeros": b"\0" * 4096,
    "noise": bytes(range(256)) * 4,
    "a text": b"no picture\n",
    "a page of HTML": b"<!doctype html><html><body>404</body></html>",
    "JSON": b'{"a": 1}',
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    "a zip file": b"PK\x03\x04" + b"\0" * 64,
    "a packed file": gzip.compress(WHOLE["PNG"]),
    "a program": b"\x7fELF\x02\x01\x01" + b"\0" * 64,
    "an array": b"\x93NUMPY\x01\x00v\x00{'descr': '|u1'}",
    "a pickle": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    **{f"{kind} of 8 bytes": WHOLE[kind][:8] for kind in KINDS},
    **{f"half of a {kind}": WHOLE[kind][: len(WHOLE[kind]) // 2] for kind in KINDS},
    **{f"a {kind} that Pillow reads": encoded(image(side=32), kind) for kind in OTHERS},
    "a PNG with a wrong CRC": WHOLE["PNG"][:45] + b"\xff\xff" + WHOLE["PNG"][47:],
    "a PNG without pixels": png(8, 8),
    "a PNG of no width": png(0, 8, chunk(b"IDAT", zlib.compress(b""))),
    "a PNG whose pixels end": png(8, 8, chunk(b"IDAT", zlib.compress(b"\0" * 20))),
    "a PNG whose pixels are noise": png(8, 8, chunk(b"IDAT", b"noise" * 9)),
    "a PNG of an unknown depth": png(8, 8, chunk(b"IDAT", zlib.compress(b"\0" * 99)), depth=7),
    "a bomb of pixels": png(60_000, 60_000, chunk(b"IDAT", zlib.compress(b"\0" * 10**6))),
    "a small bomb": png(10_000, 9_500, chunk(b"IDAT", zlib.compress(b"\0" * 10**6))),
    "a bomb of text": png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 10**8))),
    "a TIFF of floats": encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"),
    "a TIFF of 32 bits": encoded(Image.fromarray(np.ones((8, 8), np.int32)), "TIFF"),
    "a TIFF in a circle": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "a GIF of no size": b"GIF89a" + b"\0" * 7 + b";",
    "a BMP of no height": WHOLE["BMP"][:22] + b"\0" * 4 + WHOLE["BMP"][26:],
    "a PPM whose size is a text": b"P6 a b 255\n" + b"\0" * 300,
    "a PPM of a negative size": b"P6 -3 3 255\n" + b"\0" * 300,
    "a PPM larger than the world": b"P6 99999999 99999999 255\n",
    "a PFM": b"Pf 4 4 -1.0\n" + np.ones((4, 4), np.float32).tobytes(),
}  # fmt: skip


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.write(WHOLE["PNG"])
        file.truncate(2**40)


def a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


PLACES: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a device without an end": lambda path: path.symlink_to(FOREVER),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
    "a socket": a_socket,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nothing.png"),
    "a link to a folder": lambda path: path.symlink_to("/usr/share"),
    "what cannot be read": lambda path: path.symlink_to(UNREADABLE),
    "a tebibyte": sparse,
}
NAMES = {
    "not UTF-8": b"\xff\xfe.png",
    "ESC": b"\x1b[31mred.png",
    "a new line": b"a\nb.png",
    "markup": b"[bold]x.png",
}


def photos(root: Path) -> Path:
    """Two classes of six good pictures."""
    for number in range(12):
        file = root / ("blue" if number % 2 else "red") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image().save(file)
    return root


def left_out(root: Path, bad: str, tmp_path: Path) -> None:
    """The data set is refused with the file's name, and with leave goes on without it."""
    message = refused(root, tmp_path, name="folder", path=str(root))
    assert bad in message and "1 of 13" in message and "damaged_share" in message
    images = load(root, tmp_path / "more", name="folder", path=str(root), damaged_share=0.1)
    assert sum(map(len, (images.train, images.val, images.test))) == 12
    assert bad in images.source


@pytest.mark.parametrize("name", BYTES)
def test_a_bad_image_counts_as_damaged(name: str, tmp_path: Path) -> None:
    """Whatever its bytes are; what only Pillow's other readers open is not opened by them."""
    root = photos(tmp_path / "photos")
    (root / "red" / "bad.png").write_bytes(BYTES[name])
    left_out(root, "red/bad.png", tmp_path)


@pytest.mark.parametrize("name", PLACES)
def test_what_is_no_plain_file_counts_as_damaged(name: str, tmp_path: Path) -> None:
    """Nobody waits for a FIFO, and nothing is read without an end."""
    root = photos(tmp_path / "photos")
    PLACES[name](root / "red" / "bad.png")
    if name == "a link to a folder":  # is looked at as a folder, and not followed
        images = load(root, tmp_path / "cache", name="folder", path=str(root))
        assert sum(map(len, (images.train, images.val, images.test))) == 12
        return
    with pytest.MonkeyPatch.context() as patch:  # content() would wait for what the loader must not
        patch.setattr("test_bad_data_sets.content", lambda folder: {})
        left_out(root, "red/bad.png", tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_reason_to_refuse_an_image(name: str, tmp_path: Path) -> None:
    """Good ones are read; bad ones are named so that no terminal acts on it."""
    root = photos(tmp_path / "photos")
    file = os.fsencode(root) + b"/red/" + NAMES[name]
    with open(file, "wb") as stream:
        stream.write(WHOLE["PNG"])
    images = load(root, tmp_path / "cache", name="folder", path=str(root))
    assert sum(map(len, (images.train, images.val, images.test))) == 13
    with open(file, "wb") as stream:
        stream.write(b"no picture")
    assert "red/" in refused(root, tmp_path / "b", name="folder", path=str(root))


GREY16 = Image.fromarray(np.full((12, 12), 0x8000, np.uint16))
CLEAR = Image.new("RGBA", (12, 12), (0, 0, 0, 0))
CORNER = Image.new("L", (16, 16))  # bright where an upright picture has its upper left corner
CORNER.paste(255, (0, 0, 8, 8))
ANIMATED = {"save_all": True, "append_images": [Image.new("RGB", (12, 12), "white")]}
CMYK = Image.new("CMYK", (12, 12), (0, 255, 255, 0))  # red
ODD: dict[str, tuple[bytes, tuple[int, int, int]]] = {
    "16 bits in a PNG": (encoded(GREY16, "PNG"), (128, 128, 128)),
    "16 bits in a TIFF": (encoded(GREY16, "TIFF"), (128, 128, 128)),
    "16 bits in a PGM": (encoded(GREY16, "PPM"), (128, 128, 128)),
    "15 bits in a PGM": (b"P5 2 2 32767\n" + b"\x40\x00" * 4, (128, 128, 128)),
    "16 bits from the other end": (
        encoded(Image.frombytes("I;16B", (9, 9), b"\x80\0" * 81), "TIFF"),
        (128, 128, 128),
    ),
    "transparent": (encoded(CLEAR, "PNG"), (255, 255, 255)),
    "transparent grey": (encoded(CLEAR.convert("LA"), "PNG"), (255, 255, 255)),
    "transparent WebP": (encoded(CLEAR, "WEBP", lossless=True), (255, 255, 255)),
    "a transparent colour": (
        encoded(Image.new("RGB", (9, 9), (9, 9, 9)), "PNG", transparency=(9, 9, 9)),
        (255, 255, 255),
    ),
    "a transparent entry of a palette": (
        encoded(Image.new("P", (9, 9), 0), "GIF", transparency=0),
        (255, 255, 255),
    ),
    "half transparent": (
        encoded(Image.new("RGBA", (9, 9), (255, 0, 0, 128)), "PNG"),
        (255, 127, 127),
    ),
    "CMYK in a JPEG": (encoded(CMYK, "JPEG", quality=95), (255, 0, 0)),
    "CMYK in a TIFF": (encoded(CMYK, "TIFF"), (255, 0, 0)),
    "one bit": (encoded(Image.new("1", (9, 9), 1), "PNG"), (255, 255, 255)),
    "a palette": (encoded(Image.new("RGB", (9, 9), "blue").quantize(), "PNG"), (0, 0, 255)),
    "a picture of one row": (encoded(Image.new("RGB", (3000, 1), "blue"), "PNG"), (0, 0, 255)),
    "an animated GIF": (encoded(Image.new("RGB", (12, 12), "red"), "GIF", **ANIMATED), (255, 0, 0)),
    "an animated PNG": (encoded(Image.new("RGB", (12, 12), "red"), "PNG", **ANIMATED), (255, 0, 0)),
    "an animated WebP": (
        encoded(Image.new("RGB", (12, 12), "red"), "WEBP", lossless=True, **ANIMATED),
        (255, 0, 0),
    ),
    "a TIFF of two pages": (
        encoded(Image.new("RGB", (12, 12), "red"), "TIFF", **ANIMATED),
        (255, 0, 0),
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_image_is_read_as_what_it_means(name: str, tmp_path: Path) -> None:
    """Scaled by its type, over white, the first of several; and the last is said."""
    root = tmp_path / "photos"
    for number in range(12):
        file = root / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(ODD[name][0])
    images = load(root, tmp_path / "cache", name="folder", path=str(root))
    pixels = images.train.images.transpose(0, 2, 3, 1).reshape(-1, 3).astype(int)
    assert np.abs(pixels - ODD[name][1]).max() <= 3
    several = "12 files hold several pictures, of which the first is used" in images.source
    assert several == ("animated" in name or "pages" in name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_lies_as_its_exif_says(orientation: int, kind: str) -> None:
    """Stored in each of eight ways, seen as one."""
    from vitbench.data import decode

    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # numbers of Image.Transpose
    stored = CORNER.resize((16, 24)) if orientation in (1, 3) else CORNER
    if orientation in inverse:
        stored = stored.transpose(Image.Transpose(inverse[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    got, _ = decode.decode(encoded(stored, kind, exif=exif), 8, 1, None)
    assert got[0, 1, 1] > 200 and got[0, 1, 6] < 50 and got[0, 6, 6] < 50


@pytest.mark.parametrize("name", [*list(BYTES)[:20], "a bomb of pixels", "a TIFF of floats"])
def test_a_bad_photo_for_attention_is_refused(name: str, tmp_path: Path) -> None:
    """`--image` is read as images of a data set are."""
    (tmp_path / "bad.png").write_bytes(BYTES[name])
    like = load(
        photos(tmp_path / "photos"), tmp_path / "c", name="folder", path=str(tmp_path / "photos")
    )
    with pytest.raises(UserError, match=r"--image .*bad\.png: .*; use another"):
        subject.read_photos([tmp_path / "bad.png"], like)


# --- A folder and its CSV ----------------------------------------------------------------------

GOOD = "".join(f"{n}.png,{n % 2},{(n // 2) % 2}\n" for n in range(12))
TABLES: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "has no attribute"),
    "blank lines": ("\n\n\n", "has no attribute"),
    "no attribute": ("file\n0.png\n", "has no attribute"),
    "only a header": ("file,A,B\n", "holds 0 images"),
    "no header": (GOOD, ":1: column 2 is called '0'"),
    "an unnamed column": (f"file,A,\n{GOOD}", ":1: column 3 is called ''"),
    "a column of spaces": (f"file, ,B\n{GOOD}", ":1: column 2 is called ''"),
    "a column with ESC": (f"file,\x1b[31m,B\n{GOOD}", ":1: column 2"),
    "a column twice": (f"file,A,A\n{GOOD}", ":1: two columns are called A"),
    "a column too few": (f"file,A\n{GOOD}", ":2: has 2 values"),
    "a column too many": (f"file,A,B,C\n{GOOD}", ":2: has 2 values"),
    "a short line": (f"file,A,B\n{GOOD}x.png,1\n", ":14: has 1 values"),
    "an empty value": (f"file,A,B\n{GOOD}x.png,1,\n", ":14: B= is neither"),
    "a text": (f"file,A,B\n{GOOD}x.png,1,yes\n", ":14: B=yes is neither"),
    "a two": (f"file,A,B\n{GOOD}x.png,2,0\n", ":14: A=2 is neither"),
    "a half": (f"file,A,B\n{GOOD}x.png,0.5,0\n", ":14: A=0.5 is neither"),
    "not a number": (f"file,A,B\n{GOOD}x.png,nan,0\n", ":14: A=nan is neither"),
    "a large number": (f"file,A,B\n{GOOD}x.png,1e400,0\n", ":14: A=1e400 is neither"),
    "a long value": (f"file,A,B\n{GOOD}x.png,{'9' * 5000},0\n", ":14: A=999"),
    "blank lines before a bad one": (f"file,A,B\n\n\n{GOOD}\nx.png,2,0\n", ":17: A=2"),
    "lines within quotes": (f'file,A,B\n"a\nb.png",0,1\n{GOOD}x.png,2,0\n', ":16: A=2"),
    "Windows' line ends": (f"file,A,B\n{GOOD}x.png,2,0\n".replace("\n", "\r\n"), ":14: A=2"),
    "an image twice": (f"file,A,B\n{GOOD}3.png,1,1\n", r":14: lists 3.png twice (see line 5)"),
    "a path above": (f"file,A,B\n{GOOD}../x.png,1,1\n", ":14: '../x.png' is no path"),
    "a path above, later": (f"file,A,B\n{GOOD}a/../../x.png,1,1\n", ":14: 'a/../../x.png'"),
    "an absolute path": (f"file,A,B\n{GOOD}/etc/passwd,1,1\n", ":14: '/etc/passwd' is no path"),
    "no path": (f"file,A,B\n{GOOD},1,1\n", ":14: '' is no path"),
    "a path with a null byte": (f"file,A,B\n{GOOD}a\0b.png,1,1\n", "CSV|missing|null"),
    "an image that is missing": (f"file,A,B\n{GOOD}x.png,1,1\n", "x.png: missing"),
    "a folder as an image": (f"file,A,B\n{GOOD}.,1,1\n", "1 of 13"),
    "the table as an image": (f"file,A,B\n{GOOD}labels.csv,1,1\n", "1 of 13"),
    "an open quote": (f'file,A,B\n{GOOD}"x.png,1,1\n', "is not a CSV file"),
    "a quote in the middle": (f'file,A,B\n{GOOD}"x"y.png,1,1\n', "is not a CSV file"),
    "semicolons": ("file;A;B\n" + GOOD.replace(",", ";"), "has no attribute"),
    "tabs": ("file\tA\tB\n" + GOOD.replace(",", "\t"), "has no attribute"),
    "UTF-16": (f"file,A,B\n{GOOD}".encode("utf-16"), "is not a CSV file"),
    "Latin-1": (f"file,Grö,B\n{GOOD}".encode("latin-1"), "is not a CSV file"),
    "a picture": (WHOLE["PNG"], "is not a CSV file"),
    "a field of 200 kB": (f"file,A,B\n{'x' * 200_000}.png,1,1\n", "is not a CSV file"),
    "too few images": ("file,A,B\n0.png,1,0\n", "at least 10"),
}


def with_table(tmp_path: Path, text: str | bytes) -> Path:
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(12):
        image().save(root / f"{number}.png")
    (root / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


@pytest.mark.parametrize("name", TABLES)
def test_a_bad_table_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    """File, line as an editor counts it, value, rule and fix."""
    text, said = TABLES[name]
    root = with_table(tmp_path, text)
    message = refused(root, tmp_path, name="folder", path=str(root))
    assert str(root) in message
    assert any(part in message for part in said.split("|")), message


def test_a_table_with_a_mark_in_front_is_read(tmp_path: Path) -> None:
    """As spreadsheets write it: a byte order mark, spaces, numbers with a point."""
    text = "\ufefffile,A,B\n" + GOOD.replace(",1", ", 1.0")
    images = load(tmp_path, tmp_path / "c", name="folder", path=str(with_table(tmp_path, text)))
    assert images.labels == ("A", "B") and images.train.targets.max() == 1


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda root: None, "there is no such folder"),
    "a file": (lambda root: root.write_text("x"), "there is no such folder"),
    "an empty folder": (Path.mkdir, "holds 0 subfolders"),
    "images without classes": (lambda root: with_table(root.parent, "").joinpath(
        "labels.csv").unlink(), "holds 0 subfolders"),
    "one class": (lambda root: shutil.rmtree(photos(root) / "red"), "holds 1 subfolders"),
    "an empty class": (lambda root: [p.unlink() for p in (photos(root) / "red").iterdir()],
        "holds 1 subfolders"),
    "a link to itself": (lambda root: root.symlink_to(root.name), "photos"),
    "two tables": (lambda root: [(photos(root) / f"{n}.csv").touch() for n in "ab"], "2 CSV files"),
    "a table that is a folder": (lambda root: (photos(root) / "a.csv").mkdir(), "a.csv"),
    "a table that is a FIFO": (lambda root: os.mkfifo(photos(root) / "a.csv"), "a.csv"),
    "a table without an end": (
        lambda root: (photos(root) / "a.csv").symlink_to(FOREVER), "a.csv"),
    "a table that cannot be read": (
        lambda root: (photos(root) / "a.csv").symlink_to(UNREADABLE), "a.csv"),
    "a class that is not UTF-8": (
        lambda root: os.rename(photos(root) / "red", os.fsencode(root) + b"/r\xff"), "r\\udcff"),
    "a class with ESC": (
        lambda root: (photos(root) / "red").rename(root / "\x1b[31m"), "\\x1b[31m"),
    "too few images": (lambda root: [
        p.unlink() for p in (photos(root) / "red").glob("[0246].png")], "at least 10"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_no_data_set(name: str, tmp_path: Path) -> None:
    """What it holds, what it should hold."""
    damage, said = FOLDERS[name]
    damage(tmp_path / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_bad_data_sets.content", lambda folder: {})
        message = refused(tmp_path, tmp_path, name="folder", path=str(tmp_path / "photos"))
    assert said in message


@pytest.mark.parametrize(
    "path",
    ["~nobody-here/photos", "a\0b", "x" * 5000, "\x1b[31m"],
    ids=["home", "null", "long", "ESC"],
)
def test_a_path_that_cannot_be(path: str, tmp_path: Path) -> None:
    """Somebody's home who is not there, a null byte, too long, an escape."""
    assert "dataset.path" in refused(tmp_path, tmp_path, name="folder", path=path)


# --- MNIST and its relatives -------------------------------------------------------------------


def edited(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return damage


def instead(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


IDX: dict[str, Callable[[Path], None]] = {
    "nothing": edited(lambda b: b""),
    "three bytes": edited(lambda b: b[:3]),
    "half of the header": edited(lambda b: b[:7]),
    "cut": edited(lambda b: b[:-5]),
    "a byte too many": edited(lambda b: b + b"\0"),
    "floats": edited(lambda b: b"\0\0\x0d" + b[3:]),
    "a text": edited(lambda b: b"no numbers at all\n"),
    "a page of HTML": edited(lambda b: b"<!doctype html><title>404</title>"),
    "packed without its ending": edited(gzip.compress),
    "no dimension": edited(lambda b: b"\0\0\x08\0x"),
    "255 dimensions": edited(lambda b: b[:3] + b"\xff" + b[4:]),
    "2^32 items": edited(lambda b: b[:4] + b"\xff" * 4 + b[8:]),
    "no item": edited(lambda b: b[:4] + b"\0" * 4 + b[8 : 4 + 4 * b[3]]),
    "an image more": edited(lambda b: b[:7] + bytes([b[7] + 1]) + b[8:]),
    "what cannot be read": lambda path: instead(path, UNREADABLE),
    "gone": Path.unlink,
    "a folder": to_folder,
    "a FIFO": to_fifo,
    "a device": lambda path: instead(path, FOREVER),
    "a link to itself": lambda path: instead(path, path),
}
MNIST_FILES = tuple(mnist._FILES.values())


@pytest.mark.parametrize("damage", IDX)
@pytest.mark.parametrize("file", MNIST_FILES)
def test_a_damaged_file_of_mnist(file: str, damage: str, tmp_path: Path) -> None:
    """Named, or MNIST is said not to be there."""
    write_mnist(tmp_path / "data", packed=False)
    raw = tmp_path / "data" / "MNIST" / "raw"
    IDX[damage](raw / file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_bad_data_sets.content", lambda folder: {})
        message = refused(tmp_path / "data", tmp_path, name="mnist")
    assert str(raw) in message or UNREADABLE.name in message
    assert "fetch" in message or "put the four" in message or "see that it can be read" in message


IMAGES, LABELS, *_ = MNIST_FILES
ARRAYS: dict[str, tuple[str, np.ndarray, str]] = {
    "images for labels": (LABELS, np.zeros((12, 28, 28)), "[12, 28, 28] where [N] of labels"),
    "labels for images": (IMAGES, np.zeros(12), "[12] where [N, 28, 28] of images"),
    "images of no pixels": (IMAGES, np.zeros((12, 0, 0)), "[12, 0, 0]"),
    "images of 27 pixels": (IMAGES, np.zeros((12, 27, 27)), "[12, 27, 27]"),
    "images that are not square": (IMAGES, np.zeros((12, 28, 14)), "[12, 28, 14]"),
    "images of three colours": (IMAGES, np.zeros((12, 3, 28, 28)), "[12, 3, 28, 28]"),
    "a label of 10": (LABELS, np.array([10] + [0] * 11), "holds the label 10, of 10 classes"),
    "a label of 255": (LABELS, np.array([255] + [0] * 11), "holds the label 255, of 10 classes"),
    "a test label of 10": (MNIST_FILES[3], np.array([0, 1, 2, 10]), "holds the label 10"),
    "labels of two columns": (LABELS, np.zeros((12, 2)), "[12, 2] where [N] of labels"),
    "labels too few": (LABELS, np.zeros(11), "11 labels"),
    "test labels too many": (MNIST_FILES[3], np.zeros(5), "5 labels"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_numbers_that_are_not_mnist(name: str, tmp_path: Path) -> None:
    """Whole files with the wrong content."""
    write_mnist(tmp_path / "data", packed=False)
    file, array, said = ARRAYS[name]
    (tmp_path / "data" / "MNIST" / "raw" / file).write_bytes(idx(array))
    assert said in refused(tmp_path / "data", tmp_path, name="mnist")


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda b: b[:-20],
    "not packed": gzip.decompress,
    "nothing": lambda b: b"",
    "garbage at the end": lambda b: b + b"garbage",
    "a byte changed": lambda b: b[:-9] + bytes([b[-9] ^ 255]) + b[-8:],
    "packed twice": gzip.compress,
    "a bomb": lambda b: gzip.compress(b"\0\0\x08\x01" + b"\0" * 10**7),
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("file", MNIST_FILES[:2])
def test_a_damaged_archive_of_mnist(file: str, name: str, tmp_path: Path) -> None:
    """Downloads that broke off, were changed, or are something else."""
    write_mnist(tmp_path / "data", packed=True)
    path = tmp_path / "data" / "MNIST" / "raw" / f"{file}.gz"
    path.write_bytes(PACKED[name](path.read_bytes()))
    assert f"{file}.gz" in refused(tmp_path / "data", tmp_path, name="mnist")


def two_images(folder: Path) -> None:
    raw = folder / "MNIST" / "raw"
    for file, shape in ((IMAGES, (1, 28, 28)), (LABELS, (1,))):
        (raw / file).write_bytes(idx(np.zeros(shape)))


WHERE: dict[str, Callable[[Path], tuple[Path, Path]]] = {
    "data that is a file": lambda tmp: (tmp / "d" / "MNIST" / "raw" / IMAGES, tmp / "c"),
    "data whose name is too long": lambda tmp: (tmp / ("x" * 5000), tmp / "c"),
    "data that is a link to itself": lambda tmp: (
        (tmp / "loop").symlink_to("loop") or tmp / "loop", tmp / "c"),
    "a cache below a file": lambda tmp: (tmp / "d", tmp / "d" / "MNIST" / "raw" / IMAGES / "c"),
    "a cache that is a file": lambda tmp: (tmp / "d", tmp / "d" / "MNIST" / "raw" / IMAGES),
    "a cache that cannot be made": lambda tmp: (tmp / "d", Path("/proc/nowhere/cache")),
    "a cache whose name is too long": lambda tmp: (tmp / "d", tmp / ("x" * 5000)),
    "a cache on a full disk": lambda tmp: (tmp / "d", full(tmp)),
    "one image": lambda tmp: (two_images(tmp / "d") or tmp / "d", tmp / "c"),
}  # fmt: skip


def full(tmp_path: Path) -> Path:
    """A folder in which the first file that is written meets a full disk."""
    probe = tmp_path / "probe"
    load(tmp_path / "d", probe, name="mnist")
    (made,) = (p for p in probe.iterdir() if p.name.startswith("mnist"))
    partial = tmp_path / "full" / f".{made.name}.partial"
    partial.mkdir(parents=True)
    for name in ("train_images.npy", "val_images.npy", "test_images.npy"):
        (partial / f".{name}.{os.getpid()}.tmp").symlink_to("/dev/full")
    return partial.parent


@pytest.mark.parametrize("name", WHERE)
def test_folders_that_cannot_be_read_or_written(name: str, tmp_path: Path) -> None:
    """The folder is named, and how another one is chosen."""
    write_mnist(tmp_path / "d", packed=False)
    base, cache = WHERE[name](tmp_path)
    with pytest.raises(UserError) as caught:
        load(base, cache, name="mnist")
    assert "dataset.name=mnist" in str(caught.value) or IMAGES in str(caught.value)


SETS: dict[str, dict[str, tuple[str, Callable[[bytes], bytes] | None]]] = {
    "cifar10": {
        "gone": ("data_batch_3.bin", None),
        "nothing": ("data_batch_1.bin", lambda b: b""),
        "cut": ("test_batch.bin", lambda b: b[:-1]),
        "a label of 10": ("data_batch_2.bin", lambda b: b"\x0a" + b[1:]),
        "a label of 255": ("test_batch.bin", lambda b: b"\xff" + b[1:]),
        "a pickle": ("data_batch_1.bin", lambda b: b"\x80\x02}q\x00" + b[:3000]),
        "a text": ("data_batch_5.bin", lambda b: b"404\n"),
        "records of CIFAR-100": ("data_batch_4.bin", lambda b: b[:3074]),
    },
    "cifar100": {
        "gone": ("fine_label_names.txt", None),
        "cut": ("train.bin", lambda b: b[:-1]),
        "a label of 100": ("train.bin", lambda b: b[:1] + b"\x64" + b[2:]),
        "99 names": ("fine_label_names.txt", lambda b: b.rpartition(b"\n")[0]),
        "a name twice": ("fine_label_names.txt", lambda b: b.replace(b"c99", b"c98")),
        "no names": ("fine_label_names.txt", lambda b: b""),
        "names that are no text": ("fine_label_names.txt", lambda b: b"\xff\xfe\0"),
    },
    "fashion_mnist": {
        "cut": ("train-images-idx3-ubyte.gz", lambda b: b[:-9]),
        "labels for images": ("t10k-images-idx3-ubyte.gz",
            lambda b: gzip.compress(idx(np.zeros(30)))),
        "a label of 10": ("t10k-labels-idx1-ubyte.gz",
            lambda b: gzip.compress(idx(np.full(30, 10)))),
        "no images": ("train-images-idx3-ubyte.gz",
            lambda b: gzip.compress(idx(np.zeros((0, 28, 28))))),
        "fewer labels": ("train-labels-idx1-ubyte.gz", lambda b: gzip.compress(idx(np.zeros(59)))),
    },
    "emnist": {
        "a label of 47": ("emnist-balanced-train-labels-idx1-ubyte.gz",
            lambda b: gzip.compress(idx(np.full(60, 47)))),
        "other pixels": ("emnist-balanced-test-images-idx3-ubyte.gz",
            lambda b: gzip.compress(idx(np.zeros((30, 32, 32))))),
        "gone": ("emnist-balanced-test-images-idx3-ubyte.gz", None),
    },
    "svhn": {
        "nothing": ("train_32x32.mat", lambda b: b""),
        "a text": ("train_32x32.mat", lambda b: b"404\n"),
        "cut": ("train_32x32.mat", lambda b: b[: len(b) // 2]),
        "a picture": ("test_32x32.mat", lambda b: WHOLE["PNG"]),
        "gone": ("test_32x32.mat", None),
        "no labels": ("test_32x32.mat", lambda b: matlab(X=np.zeros((32, 32, 3, 30), np.uint8))),
        "a label of 11": ("test_32x32.mat", lambda b: matlab(
            X=np.zeros((32, 32, 3, 30), np.uint8), y=np.full((30, 1), 11))),
        "a label of 0": ("test_32x32.mat", lambda b: matlab(
            X=np.zeros((32, 32, 3, 30), np.uint8), y=np.zeros((30, 1)))),
        "floats": ("test_32x32.mat", lambda b: matlab(
            X=np.zeros((32, 32, 3, 30)), y=np.ones((30, 1)))),
        "images in another order": ("train_32x32.mat", lambda b: matlab(
            X=np.zeros((60, 3, 32, 32), np.uint8), y=np.ones((60, 1)))),
        "fewer labels": ("train_32x32.mat", lambda b: matlab(
            X=np.zeros((32, 32, 3, 60), np.uint8), y=np.ones((59, 1)))),
    },
}  # fmt: skip


def matlab(**arrays: np.ndarray) -> bytes:
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "damage"), [(name, damage) for name, damages in SETS.items() for damage in damages]
)
def test_a_damaged_set(name: str, damage: str, tmp_path: Path) -> None:
    """The set's title or its file is named."""
    WRITE[name][0](tmp_path / "data")
    file, change = SETS[name][damage]
    (path,) = (tmp_path / "data").rglob(file)
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    message = refused(tmp_path / "data", tmp_path, name=name)
    assert str(tmp_path / "data") in message and ("fetch" in message or "put its files" in message)


# --- CelebA ------------------------------------------------------------------------------------

ATTRIBUTES, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
LANDMARKS = "list_landmarks_align_celeba.txt"
LISTS: dict[str, tuple[str, Callable[[list[str]], list[str]], str]] = {
    "no attributes": (ATTRIBUTES, lambda lines: [], "is not one of CelebA's lists"),
    "one line": (ATTRIBUTES, lambda lines: lines[:1], "is not one of CelebA's lists"),
    "no first line": (ATTRIBUTES, lambda lines: lines[1:], "names of columns|line 3"),
    "cut": (ATTRIBUTES, lambda lines: lines[:-3], "promises 12 images and 9 follow"),
    "a count that is a text": (ATTRIBUTES, lambda lines: ["many", *lines[1:]], "promises many"),
    "a column twice": (ATTRIBUTES, lambda lines: [lines[0], "A " * 8, *lines[2:]], ":2: holds 8"),
    "a name too few": (ATTRIBUTES, lambda lines: [lines[0], "A B", *lines[2:]], "line 3 is not"),
    "a row twice": (ATTRIBUTES, lambda lines: ["13", *lines[1:], lines[4]], "line 15 lists 000003"),
    "a blank line": (ATTRIBUTES, lambda lines: [*lines[:5], "", *lines[5:]], "line 6 is not"),
    "a seven": (ATTRIBUTES, lambda lines: [*lines[:4], lines[4].replace("1", "7"), *lines[5:]],
        "line 5 holds a value that is none of -1, 1"),
    "a text": (ATTRIBUTES, lambda lines: [*lines[:4], lines[4].replace(" 1", " x"), *lines[5:]],
        "line 5 is not"),
    "a value too few": (ATTRIBUTES, lambda lines: [*lines[:4], lines[4][:-3], *lines[5:]],
        "line 5 is not"),
    "a value too many": (ATTRIBUTES, lambda lines: [*lines[:4], lines[4] + " 1", *lines[5:]],
        "line 5 is not"),
    "no partition": (PARTITION, lambda lines: [], "has no line for 000001.jpg"),
    "partition 3": (PARTITION, lambda lines: [lines[0][:-1] + "3", *lines[1:]], "line 1 holds"),
    "partition -1": (PARTITION, lambda lines: [lines[0][:-1] + "-1", *lines[1:]], "line 1 holds"),
    "a partition that is a text": (PARTITION, lambda lines: ["000001.jpg train", *lines[1:]],
        "line 1 is not"),
    "a partition row twice": (PARTITION, lambda lines: [*lines, lines[0]], "line 13 lists 000001"),
    "a partition row too few": (PARTITION, lambda lines: lines[1:], "has no line for 000001.jpg"),
    "two partitions in a row": (PARTITION, lambda lines: [lines[0] + " 0", *lines[1:]],
        "line 1 is not"),
    "nothing to train on": (PARTITION, lambda lines: [line[:-1] + "2" for line in lines],
        "leaves no image for the train split"),
    "nothing to validate": (PARTITION, lambda lines: [line.replace(" 1", " 0") for line in lines],
        "leaves no image for the val split"),
    "no landmarks": (LANDMARKS, lambda lines: [], "is not one of CelebA's lists"),
    "a landmark column too few": (LANDMARKS, lambda lines: [
        lines[0], *(line.rsplit(maxsplit=1)[0] for line in lines[1:])], "9 names of columns"),
    "a landmark value too few": (LANDMARKS, lambda lines: [
        *lines[:2], lines[2].rsplit(maxsplit=1)[0], *lines[3:]], "line 3 is not"),
    "a landmark that is a half": (LANDMARKS, lambda lines: [
        *lines[:2], lines[2] + ".5", *lines[3:]], "line 3 is not"),
    "a landmark row twice": (LANDMARKS, lambda lines: ["13", *lines[1:], lines[2]],
        "line 15 lists"),
    "a landmark row too few": (LANDMARKS, lambda lines: ["11", *lines[1:-1]], "has no line for"),
}  # fmt: skip


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("celeba")
    write_celeba_layout(folder, 12, seed=3)
    return folder


@pytest.mark.parametrize("name", LISTS)
def test_a_damaged_list_of_celeba(name: str, celeba: Path, tmp_path: Path) -> None:
    """The list and the line."""
    shutil.copytree(celeba, tmp_path / "data")
    file, change, said = LISTS[name]
    path = tmp_path / "data" / "celeba" / file
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))
    message = refused(tmp_path / "data", tmp_path, name="celeba")
    assert any(part in message for part in said.split("|")), message


def packed(folder: Path) -> Path:
    """CelebA's images in their archive in place of the folder."""
    root = folder / "celeba"
    archive = root / "img_align_celeba.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for path in sorted((root / "img_align_celeba").iterdir()):
            made.write(path, f"img_align_celeba/{path.name}")
    shutil.rmtree(root / "img_align_celeba")
    return archive


ENTRY = b"PK\x01\x02\x14\x03\x14\0"  # before a member's flags and packing in the directory
ARCHIVES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda b: b"", "cannot be opened"),
    "a text": (lambda b: b"404\n", "cannot be opened"),
    "cut": (lambda b: b[:-30], "cannot be opened"),
    "half": (lambda b: b[: len(b) // 2], "cannot be opened"),
    "a member with a bad CRC": (lambda b: b[:900] + bytes([b[900] ^ 255]) + b[901:], "1 of 12"),
    "a member of another name": (lambda b: b.replace(b"000005.jpg", b"900005.jpg"), "000005.jpg"),
    "members below another folder": (lambda b: b.replace(b"img_align", b"img_other"), "12 of 12"),
    "members of an unknown packing": (
        lambda b: b.replace(ENTRY + b"\0\0\0\0", ENTRY + b"\0\0\x63\0"), "12 of 12"),
    "members that are locked": (
        lambda b: b.replace(ENTRY + b"\0\0", ENTRY + b"\x01\0"), "12 of 12"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_damaged_archive_of_celeba(name: str, celeba: Path, tmp_path: Path) -> None:
    """The archive, or its members as damaged images."""
    shutil.copytree(celeba, tmp_path / "data")
    archive = packed(tmp_path / "data")
    change, said = ARCHIVES[name]
    archive.write_bytes(change(archive.read_bytes()))
    assert said in refused(tmp_path / "data", tmp_path, name="celeba")


# --- Arrays of the user's ----------------------------------------------------------------------

PICTURES = np.zeros((6, 1, 8, 8), np.uint8)
PART = (PICTURES, np.array([0, 1, 0, 1, 0, 1]))
PARTS: dict[str, Any] = {"train": PART, "val": PART, "test": PART}


class Wild:
    """An array-like that cannot be had."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise RuntimeError("is on another device")


def part(images: Any = PICTURES, targets: Any = PART[1]) -> dict[str, Any]:
    return {**PARTS, "train": (images, targets)}


MADE: dict[str, Any] = {
    "None": None,
    "a number": 3,
    "a tuple": (PART, PART, PART),
    "an array": PICTURES,
    "no test images": {"train": PART, "val": PART},
    "a split that is None": {**PARTS, "val": None},
    "a split of images alone": {**PARTS, "val": PICTURES},
    "a split of three": {**PARTS, "val": (*PART, 3)},
    "images as floats": part(PICTURES.astype(np.float32)),
    "images as int64": part(PICTURES.astype(np.int64)),
    "images as booleans": part(PICTURES.astype(bool)),
    "images as a text": part("images"),
    "images of three dimensions": part(PICTURES[:, 0]),
    "images of five dimensions": part(PICTURES[None]),
    "images that are not square": part(PICTURES[..., :4]),
    "images of no pixels": part(PICTURES[..., :0, :0]),
    "images of no channels": part(PICTURES[:, :0]),
    "no images": part(PICTURES[:0], PART[1][:0]),
    "ragged images": part([[1, 2], [3]]),
    "images that cannot be had": part(Wild()),
    "images as objects": part(np.array([object()] * 6)),
    "targets as floats": part(targets=PART[1].astype(float)),
    "targets as texts": part(targets=list("abcabc")),
    "targets as booleans": part(targets=PART[1].astype(bool)),
    "targets of two columns": part(targets=np.zeros((6, 2), int)),
    "targets too few": part(targets=PART[1][:5]),
    "targets too many": part(targets=np.zeros(7, int)),
    "targets below 0": part(targets=PART[1] - 1),
    "one target for all": {name: (PICTURES, np.zeros(6, int)) for name in PARTS},
    "a target of 10^12": part(targets=PART[1] * 10**12),
    "a target beyond the classes": {**part(targets=PART[1] * 2), "classes": ["a", "b"]},
    "a target that no number holds": part(targets=np.full(6, 2**64 - 1, np.uint64)),
    "colours in one split": part(np.zeros((6, 3, 8, 8), np.uint8)),
    "classes as a text": {**PARTS, "classes": "ab"},
    "classes as a number": {**PARTS, "classes": 2},
    "classes as numbers": {**PARTS, "classes": [0, 1]},
    "a class twice": {**PARTS, "classes": ["a", "a"]},
    "a class without a name": {**PARTS, "classes": ["a", ""]},
    "labels as a text": {**PARTS, "labels": "ab"},
    "labels without columns": {**PARTS, "labels": ["a", "b"]},
    "a label twice": {**{n: (PICTURES, np.zeros((6, 2), int)) for n in PARTS}, "labels": ["a"] * 2},
    "labels of 0 to 2": {
        **{n: (PICTURES, np.full((6, 1), 2)) for n in PARTS}, "labels": ["a"]},
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_what_a_function_may_not_return(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dataset.build` is named, and what it should return."""
    monkeypatch.setattr("vitbench.user_code.load", lambda spec: lambda **_: MADE[name])
    dataset = Dataset.model_validate({"build": "mydata:load", "image_size": 8})
    with pytest.raises(UserError, match=r"^dataset\.build=mydata:load: ") as caught:
        own.load(dataset)
    assert len(str(caught.value)) < 700


# --- The cache ---------------------------------------------------------------------------------


def flip(place: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        whole = bytearray(path.read_bytes())
        whole[int(place * (len(whole) - 1))] ^= 1
        path.write_bytes(bytes(whole))

    return damage


CACHE: dict[str, Callable[[Path], None]] = {
    **{f"a bit at {place:.0%}": flip(place) for place in (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)},
    "cut": edited(lambda b: b[: len(b) // 2]),
    "longer": edited(lambda b: b + b"\0"),
    "empty": edited(lambda b: b""),
    "gone": Path.unlink,
    "a folder": to_folder,
    "a FIFO": to_fifo,
}


@pytest.mark.parametrize("damage", CACHE)
@pytest.mark.parametrize(
    "file", ["info.json", "train_images.npy", "val_targets.npy", "test_images.npy"]
)
def test_a_damaged_cache_is_made_again(file: str, damage: str, tmp_path: Path) -> None:
    """Whichever byte it is: the images are those of before, and whole on the disk again."""
    root = photos(tmp_path / "photos")
    settings = {"name": "folder", "path": str(root)}
    before = load(root, tmp_path / "cache", **settings)
    expected = {n: np.array(getattr(before, n).images) for n in ("train", "val", "test")}
    (made,) = (p for p in (tmp_path / "cache").iterdir() if not p.name.startswith("."))
    whole = content(made)
    CACHE[damage](made / file)
    again = load(root, tmp_path / "cache", **settings)
    assert again.checksum == before.checksum and again.source == before.source
    assert all((getattr(again, n).images == images).all() for n, images in expected.items())
    assert content(made) == whole


# --- The command -------------------------------------------------------------------------------


def test_the_command_ends_with_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is refused here ends `vitbench sweep` with one message, and no results."""
    root = with_table(tmp_path, TABLES["an image twice"][0])
    file = tmp_path / "s.yaml"
    file.write_text(
        f"name: a\ndataset: {{name: folder, path: {root}, image_size: 8}}\n"
        "model: {patch_grid: 2, depth: 1, heads: 2, width: 8, mlp: 8}\n"
        "train: {epochs: 1}\nsearch: {space: {lr: [0.1]}}\n"
    )
    assert sweep.main([str(file), "--out", str(tmp_path / "out"), "--scale", "paper"]) == 2
    message = capsys.readouterr().err.strip()
    assert message.endswith("labels.csv:14: lists 3.png twice (see line 5); keep one line")
    assert not (tmp_path / "out").exists()


def test_how_many_there_are() -> None:
    """At least 200 data sets, and what they are."""
    cases = [BYTES, PLACES, NAMES, ODD, TABLES, FOLDERS, ARRAYS, WHERE, LISTS, ARCHIVES, MADE]
    count = sum(map(len, cases)) + 4 * len(IDX) + 2 * len(PACKED) + sum(map(len, SETS.values()))
    assert count + 4 * len(CACHE) >= 400
