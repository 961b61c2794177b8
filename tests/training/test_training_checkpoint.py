"""Checkpoints: whole or absent, and refused with a reason when they cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitbench.errors import UserError
from vitbench.model.layout import VitShape
from vitbench.model.vit import StackedVit
from vitbench.training.checkpoint import CheckpointStore, load_member

SHAPE = VitShape(8, 1, 2, 1, 2, 8, 12, 3)


def written(root: Path) -> Path:
    model = StackedVit(SHAPE, 2)
    model.initialise([0, 1])
    return CheckpointStore(root).save("t", "best", model.member_state(1), {"shape": vars(SHAPE)})


def test_the_json_says_what_the_tensor_file_says(tmp_path: Path) -> None:
    """Both files of the pair carry the same information."""
    path = written(tmp_path)
    _, info = load_member(path)
    assert json.loads(path.with_suffix(".json").read_text()) == info


def test_a_missing_file_is_a_user_error(tmp_path: Path) -> None:
    """With its path."""
    with pytest.raises(UserError, match="nothing"):
        load_member(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_truncated_file_is_a_user_error(tmp_path: Path, keep: int) -> None:
    """Cut anywhere: in the header, in the tensors, at the last byte."""
    path = written(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    with pytest.raises(UserError, match=r"best\.safetensors"):
        load_member(path)


def test_another_format_and_a_foreign_file_are_user_errors(tmp_path: Path) -> None:
    """A later format, and a safetensors file that is no checkpoint of vitbench."""
    path = written(tmp_path)
    tensors = load_file(path)
    save_file(tensors, path, metadata={"info": json.dumps({"format": 99})})
    with pytest.raises(UserError, match="99"):
        load_member(path)
    save_file(tensors, path)
    with pytest.raises(UserError, match="not a checkpoint"):
        load_member(path)


def test_tensors_that_do_not_fit_the_stated_shape_are_a_user_error(tmp_path: Path) -> None:
    """The tensor is named."""
    path = written(tmp_path)
    other = {**vars(SHAPE), "width": 16}
    save_file(load_file(path), path, metadata={"info": json.dumps({"format": 1, "shape": other})})
    with pytest.raises(UserError, match="patch"):
        load_member(path)


def test_a_failed_write_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the rename: what was there is still there."""
    path = written(tmp_path)
    before = path.read_bytes()

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        CheckpointStore(tmp_path).save("t", "best", {"x": torch.ones(3)}, {})
    monkeypatch.undo()
    assert path.read_bytes() == before
    load_member(path)


def test_half_written_states_do_not_count(tmp_path: Path) -> None:
    """Only whole states that all members share are gone on from."""
    store = CheckpointStore(tmp_path)
    for trial, epochs in {"a": (1, 2, 3), "b": (2,), "c": (1, 2)}.items():
        for epoch in epochs:
            store.save(trial, f"state-{epoch}", {"x": torch.ones(1)}, {})
    (tmp_path / "b" / ".state-3.safetensors.1.tmp").write_bytes(b"half")
    assert store.common_epoch(["a", "b", "c"]) == 2
    assert store.common_epoch(["a"]) == 3
    assert store.common_epoch(["a", "unknown"]) == 0
    store.keep_only(["a", "c"], 2)
    assert store.common_epoch(["a", "c"]) == 2 and store.common_epoch(["a"]) == 2
