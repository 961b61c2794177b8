"""Files that are either there in whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from vitbench.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; the file becomes `path` when the block ends well.

    Raises:
        UserError: if a folder stands in the file's place.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        try:
            os.replace(temporary, path)
        except IsADirectoryError:
            raise UserError(f"{path}: a folder stands where a file belongs; move it away") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes, *, sync: bool = False) -> None:
    """Write a text (as UTF-8) or bytes; with `sync` they are on the disk on return."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if sync:
            file.flush()
            os.fsync(file.fileno())
