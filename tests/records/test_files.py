"""A file is whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitbench.records.files import replacing, write_atomically


def test_text_and_bytes_replace_what_was_there(tmp_path: Path) -> None:
    """And nothing else is left in the folder."""
    path = tmp_path / "a.txt"
    write_atomically(path, "one: ä")
    assert path.read_text(encoding="utf-8") == "one: ä"
    write_atomically(path, b"\x00two", sync=True)
    assert path.read_bytes() == b"\x00two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """Half of a table must not take the place of a whole one."""
    path = tmp_path / "a.txt"
    write_atomically(path, "whole")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("ha")
        raise RuntimeError
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
