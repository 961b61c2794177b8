"""A folder of results behaves alike on a file system and in a bucket."""

from __future__ import annotations

import os
import pickle

import pytest

from vitbench.errors import UserError
from vitbench.storage.place import Place, is_bucket


def test_files_come_back_and_go(place: Place) -> None:
    """What was written is read; a folder lists what is below it; removing twice is no error."""
    folder = place.child("a")
    folder.write("b.bin", b"first")
    folder.write("b.bin", b"\0\1")
    folder.child("deep").write("c", b"")
    assert folder.read("b.bin") == b"\0\1"
    assert folder.files() == {"b.bin": 2, "deep/c": 0}
    assert folder.holds("b.bin") and not folder.holds("deep") and not folder.holds("never")
    assert place.child("nowhere").files() == {}
    with pytest.raises(FileNotFoundError):
        folder.read("never")
    folder.remove(["b.bin", "b.bin", "never"])
    assert list(folder.files()) == ["deep/c"]
    folder.remove_all()
    folder.remove_all()
    assert place.files() == {}


def test_a_worker_finds_the_same_place(place: Place) -> None:
    """Its address is all that travels; no connection and no key."""
    place.write("x", b"1")
    assert pickle.loads(pickle.dumps(place)).child("").read("x") == b"1"


def test_a_failed_write_leaves_the_old_file_whole(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the rename, after the bytes were on the disk: the old file is still there."""
    place = Place(str(tmp_path_factory.mktemp("results")))
    place.write("x", b"old")
    synced: list[int] = []

    def killed(*args: object) -> None:
        assert synced, "renamed before the content is on the disk: a power cut leaves half a file"
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        place.write("x", b"new and longer")
    assert place.read("x") == b"old"


def test_addresses_that_cannot_work_are_refused() -> None:
    """An unknown scheme, and a password that every record would repeat; a path is no bucket."""
    assert is_bucket("s3://a/b") and not is_bucket("/mnt/results")
    with pytest.raises(UserError, match="s3://BUCKET"):
        Place.bucket("ftp://host/x")
    with pytest.raises(UserError, match="AWS_SECRET_ACCESS_KEY"):
        Place.bucket("s3://key:secret@bucket/x")
