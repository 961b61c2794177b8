"""Checkpoints in a folder and in a bucket: which states count, and what is removed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vitbench.errors import UserError
from vitbench.records import tables
from vitbench.storage.checkpoints import Checkpoints
from vitbench.storage.place import Place


def test_another_process_goes_on_from_them(place: Place) -> None:
    """States are found by another process, the common epoch counts, and others are removed."""
    checkpoints = Checkpoints(place)
    info = {"images": "checksum"}
    for trial_id, epochs in (("one", (1, 2)), ("two", (1,))):
        for epoch in epochs:
            tensors = {"params": torch.full((3,), epoch)}
            checkpoints.save(trial_id, f"state-{epoch}", tensors, info)
    checkpoints.save("one", "best", {"params": torch.zeros(2)}, info)
    assert place.holds(checkpoints.name("one", "best"))

    other = Checkpoints(place)
    assert other.common_epoch(["one", "two"]) == 1
    assert other.common_epoch(["one"]) == 2
    assert other.common_epoch(["one", "two", "three"]) == 0
    tensors, read = other.load_state("one", 2)
    assert tensors["params"].tolist() == [2, 2, 2] and read["images"] == "checksum"

    assert other.state_epochs("one") == {1, 2}
    checkpoints.keep_only(["one"], 2)
    assert other.state_epochs("one") == {2}
    checkpoints.keep_only(["one"], None)
    folder = place.child("checkpoints/one")
    assert sorted(folder.files()) == ["best.json", "best.safetensors"]
    checkpoints.remove("one")
    assert folder.files() == {} and other.state_epochs("two") == {1}
    checkpoints.remove("one")


def test_half_written_states_do_not_count(tmp_path: Path) -> None:
    """A worker was killed while it wrote: what lies beside under another name is no state."""
    checkpoints = Checkpoints(Place(str(tmp_path)))
    checkpoints.save("a", "state-2", {"x": torch.ones(1)}, {})
    folder = tmp_path / "checkpoints" / "a"
    (folder / ".state-3.safetensors.1.tmp").write_bytes(b"half")
    (folder / "state-4.json").write_bytes(b"{}")  # its tensors are not there
    assert checkpoints.state_epochs("a") == {2}


def test_checkpoints_that_cannot_be_removed_end_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cost disk; the sweep goes on, and the log names the trial."""

    def refused(self: Place) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Place, "remove_all", refused)
    Checkpoints(Place(str(tmp_path))).remove("kept")
    assert "kept" in caplog.text and "read-only" in caplog.text


def test_a_node_that_does_not_see_the_folder_says_so(place: Place) -> None:
    """Otherwise it would make the folder on its own disk, and lose what it writes."""
    checkpoints = Checkpoints(place)
    with pytest.raises(UserError, match="does not see"):
        checkpoints.require_results_folder()
    place.write(tables.LEDGER, b"")
    checkpoints.require_results_folder()
