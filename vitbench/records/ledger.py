"""The record of a run: one JSON object a line, appended by the driver as results arrive.

Tables are built from it, so whatever happens to the driver, all that was reported is there.
`kind` says what a line is:

    run        a driver started (time, command line)
    decided    what holds for all trials of the sweep: precision and threads where `auto`
    suggestion what a search drew: its number, its settings, and why it is not trained, if so
    trial      a planned trial: its stack and its whole configuration
    epoch      one row of epochs.parquet
    outcome    how a trial ended: the measured columns of trials.parquet
    event      anything else worth knowing (retries, interruptions)

Numbers that are not finite are written as NaN and Infinity, which Python's json reads back. Every
append is flushed to the operating system; outcomes also reach the disk before it returns.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
from pyarrow import json as json_reader

from vitbench.errors import UserError

_AT_ONCE, _FIRST_LINE, _BYTES_AT_ONCE = 200, 2**20, 2**26


class Ledger:
    """The one writer of a ledger; use as a context manager.

    Raises:
        UserError: on entering, if another driver has the ledger open, or the file is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Ledger:
        try:
            self._file = self.path.open("a+b")
        except IsADirectoryError:
            rule = "a folder stands where a file belongs; move it away"
            raise UserError(f"{self.path}: {rule}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UserError(
                f"{self.path}: another vitbench is running on this folder; wait for it to end, "
                f"or stop it with Ctrl-C before you resume"
            ) from None
        self._file.seek(0)
        if b"\n" in (start := self._file.read(_FIRST_LINE)):
            _parse(self.path, start.split(b"\n")[0].decode(errors="replace"), 1)
        # Cut off a last line that a killed driver left half-written.
        self._file.truncate(self.path.read_bytes().rfind(b"\n") + 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles who draws its stacks; the open file stays with the driver."""
        return {"path": self.path}

    def append(self, kind: str, **fields: Any) -> None:
        """Write one line."""
        self.extend(kind, [fields])

    def extend(self, kind: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write one line per row."""
        now_s = round(time.time(), 3)
        lines = [json.dumps({"kind": kind, "time_s": now_s, **row}) + "\n" for row in rows]
        if lines:
            self._file.write("".join(lines).encode())
            self._file.flush()
            if kind == "outcome":
                os.fsync(self._file.fileno())


def read(path: Path) -> Iterator[dict[str, Any]]:
    """All whole lines of a ledger, oldest first; a torn last line is left out.

    Raises:
        UserError: if a line before the last one is not JSON.
    """
    first = 1
    with path.open(encoding="utf-8", errors="replace") as file:
        while lines := list(itertools.islice(file, _AT_ONCE)):
            if not lines[-1].endswith("\n"):
                lines.pop()  # a driver is writing it now, or died while it did
            try:
                objects = json.loads(f"[{','.join(lines)}]")  # faster than one by one
            except ValueError:
                objects = []
            if len(objects) != len(lines) or not all(map(_is_whole, objects)):  # which?
                objects = [_parse(path, line, number) for number, line in enumerate(lines, first)]
            yield from objects
            first += len(lines)


def _is_whole(line: Any) -> bool:
    """Whether an object is a line of a ledger, with what its kind needs."""
    if not isinstance(line, dict) or not isinstance(line.get("time_s"), int | float):
        return False
    match line.get("kind"):
        case "epoch":
            return isinstance(line.get("trial_id"), str) and isinstance(line.get("epoch"), int)
        case "outcome":
            return isinstance(line.get("trial_id"), str)
        case "suggestion":
            return isinstance(line.get("number"), int) and isinstance(line.get("params"), dict)
        case "trial":
            config = line.get("config")
            return (
                isinstance(line.get("trial_id"), str)
                and isinstance(line.get("stack_id"), str)
                and isinstance(config, dict)
                and all(isinstance(config.get(n), dict) for n in ("dataset", "model", "train"))
            )
        case kind:
            return isinstance(kind, str)


def is_whole_line(line: bytes) -> bool:
    """Whether this is a line that `read` accepts."""
    try:
        return _is_whole(json.loads(line))
    except ValueError:
        return False


class Bookmark:
    """How far a file that grows was read."""

    def __init__(self) -> None:
        self._inode: int | None = None
        self.bytes = 0

    def go_on(self, file: BinaryIO) -> bool:
        """Go there; False, and to the start, where another file stands there now, or a cut one."""
        found = os.fstat(file.fileno())
        same = found.st_ino == self._inode and found.st_size >= self.bytes
        if not same:
            self._inode, self.bytes = found.st_ino, 0
        file.seek(self.bytes)
        return same


class Reader:
    """Reads a ledger, lines of one kind as columns; asked again, only what was added since.

    Columns take a tenth of the time of objects. Those of the schema that a line lacks are null
    there; what the schema lacks is left out.
    """

    def __init__(self, path: Path, kind: str, schema: pyarrow.Schema) -> None:
        self.path = path
        self._start, self._schema = b'{"kind": "' + kind.encode() + b'"', schema
        self._bookmark = Bookmark()
        self._begin_again()

    def _begin_again(self) -> None:
        self._lines = 0  # read so far
        self._others: list[dict[str, Any]] = []
        self._rows = self._schema.empty_table()

    def read(self) -> tuple[list[dict[str, Any]], pyarrow.Table]:
        """All whole lines so far: (those of other kinds, those of the kind); change neither.

        Raises:
            UserError: as `read` of this module.
        """
        with self.path.open("rb") as file:
            if not self._bookmark.go_on(file):
                self._begin_again()
            try:
                while lines := file.readlines(_BYTES_AT_ONCE):
                    if not lines[-1].endswith(b"\n"):
                        lines.pop()  # a driver is writing it now, or died while it did
                    self._take(lines)
            except UserError:
                self._bookmark = Bookmark()  # the line may be mended before somebody asks again
                raise
        return self._others, self._rows

    def _take(self, lines: list[bytes]) -> None:
        chosen = []
        for number, line in enumerate(lines, self._lines + 1):
            if line.startswith(self._start):
                chosen.append((number, line))
            else:
                self._others.append(_parse(self.path, line, number))
        if chosen:
            self._rows = pyarrow.concat_tables([self._rows, self._columns(chosen)])
        self._bookmark.bytes += sum(map(len, lines))
        self._lines += len(lines)

    def _columns(self, chosen: list[tuple[int, bytes]]) -> pyarrow.Table:
        longest = max(len(line) for _, line in chosen)
        blocks = json_reader.ReadOptions(block_size=2 * longest + 2**22)
        options = json_reader.ParseOptions(
            explicit_schema=self._schema, unexpected_field_behavior="ignore"
        )
        content = pyarrow.BufferReader(b"".join(line for _, line in chosen))
        try:
            part = json_reader.read_json(content, blocks, options)
            if part["trial_id"].null_count or part["epoch"].null_count:
                raise pyarrow.ArrowInvalid("a line lacks what names its row")
            return part
        except pyarrow.ArrowInvalid:  # which line is it?
            rows = [_parse(self.path, line, number) for number, line in chosen]
            columns = {name: [row.get(name) for row in rows] for name in self._schema.names}
            try:
                return pyarrow.table(columns, schema=self._schema)
            except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
                rule = f"holds a value that is none of its column ({error})"
                raise UserError(f"{self.path}: {rule}; remove that line to read the rest") from None


def _parse(path: Path, line: str | bytes, number: int) -> Any:
    try:
        content = json.loads(line)
    except ValueError:
        content = None
    if not _is_whole(content):
        raise UserError(
            f"{path}:{number}: is not a whole line of a ledger; the file was edited or the "
            f"disk is damaged; remove this line to read the rest"
        )
    return content
