"""Files of data sets, read as what they should be: plain files of a size that memory bears."""

from __future__ import annotations

import errno
import gzip
import hashlib
import stat
import zlib
from pathlib import Path

_MOST_BYTES = 2**29  # of a file, unpacked: the largest that a known set has are 180 MB


def read(path: Path, most: int = _MOST_BYTES) -> bytes:
    """The content of a file, unpacked where its name ends in `.gz`.

    Raises:
        OSError: also where it is no plain file (a FIFO would keep its reader waiting, a device may
            have no end), is larger than `most` bytes, or is damaged where it is packed.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("is no plain file")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read(most + 1)
    except (EOFError, zlib.error) as error:
        raise OSError(str(error)) from error
    if len(content) > most:
        raise OSError(f"holds more than {most:,} bytes")
    return content


def digest(path: Path) -> bytes:
    """SHA-256 over a plain file as it lies on the disk.

    Raises:
        OSError: that names the file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "is no plain file")
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:  # one of reading does not know what was read
        raise OSError(error.errno, error.strerror, str(path)) from error
