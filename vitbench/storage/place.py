"""A folder that holds results, on a file system or in a bucket, read and written in one way."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vitbench.errors import UserError
from vitbench.records.files import write_atomically

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_SCHEMES = ("s3", "gs")


def is_bucket(storage: str) -> bool:
    """Whether this names a bucket; everything else is a path."""
    return "://" in storage


@dataclass(frozen=True)
class Place:
    """A folder by its address: s3://…, gs://… or an absolute path; travels to workers.

    Names are relative to the folder, with `/` between folders. A file appears in whole or not at
    all: a bucket has no other way, and on a file system it is written beside and then renamed.
    """

    address: str

    @classmethod
    def bucket(cls, storage: str) -> Place:
        """A folder of a bucket; a UserError if its scheme is not known, or it holds a password."""
        parts = urlsplit(storage)
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise UserError(
                f"storage: {storage} is no bucket that can be used; write s3://BUCKET/FOLDER, "
                f"gs://BUCKET/FOLDER or a path"
            )
        if parts.password is not None:
            raise UserError(
                "storage: the address holds a password, which every record of the run would "
                "repeat; give it by the environment (AWS_SECRET_ACCESS_KEY) or the machine's role"
            )
        return cls(storage)

    @property
    def in_bucket(self) -> bool:
        """Whether this is a folder of a bucket, not of a file system."""
        return is_bucket(self.address)

    def child(self, name: str) -> Place:
        """A folder in this one."""
        if not self.in_bucket:
            return Place(f"{self.address}/{name}")
        parts = urlsplit(self.address)  # options may follow the path
        return Place(parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl())

    def holds(self, name: str) -> bool:
        """Whether there is a file of this name."""
        system, root = _opened(self.address)
        return bool(system.get_file_info(f"{root}/{name}").is_file)

    def read(self, name: str) -> bytes:
        """The content of a file; a FileNotFoundError if it is not there."""
        system, root = _opened(self.address)
        with system.open_input_stream(f"{root}/{name}") as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes) -> None:
        """Write a file, and the folders that it lies in; it appears in whole, or not at all."""
        system, root = _opened(self.address)
        path = f"{root}/{name}"
        if self.in_bucket:
            with system.open_output_stream(path) as stream:
                stream.write(content)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(Path(path), content, sync=True)

    def files(self) -> dict[str, int]:
        """Bytes of each file in this folder and below, by its name; none where there is none."""
        from pyarrow.fs import FileSelector, FileType

        system, root = _opened(self.address)
        infos = system.get_file_info(FileSelector(root, allow_not_found=True, recursive=True))
        return {
            info.path[len(root) + 1 :]: info.size for info in infos if info.type == FileType.File
        }

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are no error."""
        system, root = _opened(self.address)
        for name in names:
            with suppress(FileNotFoundError):  # somebody was faster
                system.delete_file(f"{root}/{name}")

    def remove_all(self) -> None:
        """Remove the folder with everything in it; no error if it is not there."""
        system, root = _opened(self.address)
        with suppress(FileNotFoundError):
            system.delete_dir(root)


@functools.cache
def _opened(address: str) -> tuple[FileSystem, str]:
    """The file system of an address and the path on it; made once, as it asks for a region."""
    from pyarrow.fs import FileSystem, LocalFileSystem

    if not is_bucket(address):
        return LocalFileSystem(), address
    system, root = FileSystem.from_uri(address)
    return system, root.rstrip("/")
