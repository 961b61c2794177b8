"""Where a sweep's results live when that is a bucket: s3://… or gs://…

A bucket has no append and no rename. So the driver keeps the results folder on its own disk, where
the ledger is appended to, and copies what changed; workers write checkpoints to the bucket
themselves, one object each, which is there in whole or not at all.
"""

from __future__ import annotations

import functools
import logging
import shutil
import socket
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from vitbench.errors import UserError
from vitbench.plan.resume import state_epochs
from vitbench.records import tables

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

    from vitbench.training.checkpoint import CheckpointStore

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
_SCHEMES = ("s3", "gs")
# Tune's working state, which nobody reads after the run, and what workers put there themselves.
_NOT_COPIED = (CHECKPOINTS, "ray")
# What SQLite keeps beside a database while it writes.
_HALF_WRITTEN = ("-journal", "-wal", "-shm")
_COPY_INTERVAL_S = 15.0


def is_bucket(storage: str) -> bool:
    """Whether this names a bucket; everything else is a path."""
    return "://" in storage


@dataclass(frozen=True)
class Bucket:
    """A folder in a bucket, by its address; travels to workers."""

    uri: str

    @classmethod
    def parse(cls, storage: str) -> Bucket:
        """Check an address.

        Raises:
            UserError: if its scheme is not known, or it holds a password.
        """
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

    def child(self, name: str) -> Bucket:
        """A folder in this one."""
        parts = urlsplit(self.uri)
        return Bucket(parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl())

    def read(self, name: str) -> bytes:
        """The content of an object."""
        system, root = self._open()
        with system.open_input_stream(f"{root}/{name}") as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes) -> None:
        """Write an object; it appears in whole, or not at all."""
        system, root = self._open()
        with system.open_output_stream(f"{root}/{name}") as stream:
            stream.write(content)

    def files(self) -> dict[str, int]:
        """Sizes of all objects in this folder and below, by their names from here."""
        from pyarrow.fs import FileSelector, FileType

        system, root = self._open()
        found = system.get_file_info(FileSelector(root, allow_not_found=True, recursive=True))
        return {
            info.path[len(root) + 1 :]: info.size for info in found if info.type == FileType.File
        }

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects; those that are not there are no error."""
        system, root = self._open()
        for name in names:
            try:
                system.delete_file(f"{root}/{name}")
            except FileNotFoundError:
                continue  # somebody was faster

    def _open(self) -> tuple[FileSystem, str]:
        return _opened(self.uri)


@functools.cache
def _opened(uri: str) -> tuple[FileSystem, str]:
    """The connection of this process: making one asks the bucket for its region."""
    from pyarrow.fs import FileSystem

    system, root = FileSystem.from_uri(uri)
    return system, root.rstrip("/")


class Checkpoints(Protocol):
    """Where the checkpoints of a run are; travels to workers."""

    def store(self) -> CheckpointStore:
        """For a worker, to write and to go on from."""

    def state_epochs(self, trial_id: str) -> set[int]:
        """Epochs that a trial can go on from."""

    def remove(self, trial_id: str) -> None:
        """Remove all checkpoints of a trial."""


@dataclass(frozen=True)
class FolderCheckpoints:
    """Checkpoints in a folder that all nodes see."""

    folder: Path

    def store(self) -> CheckpointStore:
        """For a worker, to write and to go on from.

        Raises:
            UserError: on a node that joined later and does not see the folder.
        """
        from vitbench.training.checkpoint import CheckpointStore

        if not (self.folder.parent / tables.LEDGER).is_file():
            raise UserError(
                f"storage: this node ({socket.gethostname()}) does not see {self.folder.parent}; "
                f"mount the folder there, or name one that all nodes share with `storage:`"
            )
        return CheckpointStore(self.folder)

    def state_epochs(self, trial_id: str) -> set[int]:
        """Epochs that a trial can go on from."""
        return state_epochs(self.folder, trial_id)

    def remove(self, trial_id: str) -> None:
        """Remove all checkpoints of a trial."""
        shutil.rmtree(self.folder / trial_id, ignore_errors=True)


@dataclass(frozen=True)
class BucketCheckpoints:
    """Checkpoints in a bucket."""

    bucket: Bucket

    def store(self) -> CheckpointStore:
        """For a worker, to write and to go on from."""
        from vitbench.storage.bucket_store import BucketStore

        return BucketStore(self.bucket)

    def state_epochs(self, trial_id: str) -> set[int]:
        """Epochs that a trial can go on from."""
        return epochs_of(self.bucket.child(trial_id).files())

    def remove(self, trial_id: str) -> None:
        """Remove all checkpoints of a trial."""
        folder = self.bucket.child(trial_id)
        folder.remove(list(folder.files()))


def epochs_of(names: Mapping[str, Any]) -> set[int]:
    """The epochs of the states among these files."""
    stems = (Path(name).stem for name in names if name.endswith(".safetensors"))
    return {int(stem.removeprefix("state-")) for stem in stems if stem.startswith("state-")}


class Mirror:
    """Copies a results folder to its bucket, while the sweep runs and at its end.

    Use as a context manager around the run; `copy` once more when the last file is written.
    """

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self._folder = folder
        self._bucket = bucket
        self._copied: dict[Path, tuple[int, int]] = {}
        self._over = threading.Event()

    def __enter__(self) -> Mirror:
        self.copy()  # the run does not start where nothing can be written
        self._thread = threading.Thread(target=self._keep_copying, name="mirror", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def uri(self) -> str:
        """Where the copy is."""
        return self._bucket.uri

    def copy(self) -> None:
        """Copy what changed since the last time.

        Raises:
            UserError: if the bucket does not take it.
        """
        try:
            for path in self._files():
                stat = path.stat()
                seen = stat.st_size, stat.st_mtime_ns
                if self._copied.get(path) != seen:
                    self._bucket.write(path.relative_to(self._folder).as_posix(), _content(path))
                    self._copied[path] = seen
        except OSError as error:
            raise UserError(
                f"storage: cannot write to {self._bucket.uri} ({error}); check the address and the "
                f"permissions. Everything so far is in {self._folder}"
            ) from error

    def _files(self) -> Iterator[Path]:
        for path in sorted(self._folder.rglob("*")):
            inside = path.relative_to(self._folder).parts
            if inside[0] in _NOT_COPIED or path.name.startswith(".") or not path.is_file():
                continue
            if not path.name.endswith(_HALF_WRITTEN):
                yield path

    def _keep_copying(self) -> None:
        while not self._over.wait(_COPY_INTERVAL_S):
            try:
                self.copy()
            except UserError as error:  # a short outage; the last copy is made after the run
                logger.warning("%s", error)


def fetch(bucket: Bucket, folder: Path) -> None:
    """Bring a run from its bucket to this disk, checkpoints excepted, unless it is here already."""
    files = bucket.files()
    here = folder / tables.LEDGER
    if here.is_file() and here.stat().st_size >= files.get(tables.LEDGER, 0):
        return
    for name in files:
        if Path(name).parts[0] not in _NOT_COPIED:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(bucket.read(name))


def fetch_latest(bucket: Bucket, out: Path, name: str) -> None:
    """Bring the latest run of a sweep from the bucket to `out`, if there is one."""
    runs = sorted({Path(file).parts[0] for file in bucket.child(name).files()})
    if runs:
        fetch(bucket.child(name).child(runs[-1]), out / name / runs[-1])


def _content(path: Path) -> bytes:
    """The file as it is; a database as of its last whole transaction."""
    if path.suffix != ".db":
        return path.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        source, target = sqlite3.connect(path), sqlite3.connect(copy)
        source.backup(target)
        source.close()
        target.close()
        return copy.read_bytes()
