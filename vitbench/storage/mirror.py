"""Copies a run between the driver's disk and its bucket.

A bucket has no append and no rename. So the driver keeps the results folder on its own disk, where
the ledger is appended to, and copies what changed; workers write checkpoints to the bucket
themselves.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from pathlib import Path

from vitbench.errors import UserError
from vitbench.records import tables
from vitbench.storage import CHECKPOINTS
from vitbench.storage.place import Place

logger = logging.getLogger(__name__)

# What workers put there themselves, and Tune's working state, which nobody reads after the run.
_NOT_COPIED = (CHECKPOINTS, "ray")
# What SQLite keeps beside a database while it writes.
_HALF_WRITTEN = ("-journal", "-wal", "-shm")
_COPY_INTERVAL_S = 15.0


class Mirror:
    """Copies a results folder to its bucket, as a context manager while the sweep runs.

    `copy` once more when the last file is written.
    """

    def __init__(self, folder: Path, bucket: Place) -> None:
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

    def copy(self) -> None:
        """Copy what changed since the last time; a UserError if the bucket does not take it."""
        try:
            for path in sorted(self._folder.rglob("*")):
                inside = path.relative_to(self._folder)
                passed_over = inside.parts[0] in _NOT_COPIED or path.name.startswith(".")
                if passed_over or path.name.endswith(_HALF_WRITTEN) or not path.is_file():
                    continue
                stat = path.stat()
                seen = stat.st_size, stat.st_mtime_ns
                if self._copied.get(path) != seen:
                    self._bucket.write(inside.as_posix(), _content(path))
                    self._copied[path] = seen
        except OSError as error:
            raise UserError(
                f"storage: cannot write to {self._bucket.address} ({error}); check the address and "
                f"the permissions. Everything so far is in {self._folder}"
            ) from error

    def _keep_copying(self) -> None:
        while not self._over.wait(_COPY_INTERVAL_S):
            try:
                self.copy()
            except UserError as error:  # a short outage; the last copy is made after the run
                logger.warning("%s", error)


def fetch_latest(bucket: Place, out: Path, name: str) -> None:
    """Bring a sweep's latest run from the bucket to `out`, unless it is here; no checkpoints."""
    latest = max({Path(file).parts[0] for file in bucket.child(name).files()}, default=None)
    if latest is None:
        return
    run, folder = bucket.child(name).child(latest), out / name / latest
    files, here = run.files(), folder / tables.LEDGER
    if here.is_file() and here.stat().st_size >= files.get(tables.LEDGER, 0):
        return
    disk = Place(str(folder.absolute()))
    for file in sorted(files, key=lambda file: file == tables.LEDGER):  # last: with it all is here
        if Path(file).parts[0] not in _NOT_COPIED:
            disk.write(file, run.read(file))


def _content(path: Path) -> bytes:
    """The file as it is; a database as of its last whole transaction."""
    if path.suffix != ".db":
        return path.read_bytes()
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.serialize()
