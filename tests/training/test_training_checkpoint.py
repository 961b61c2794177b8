"""Checkpoint files: what goes in comes out, and what cannot be read is refused with a reason."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitbench.errors import UserError
from vitbench.model.layout import VitShape
from vitbench.model.vit import StackedVit
from vitbench.training.checkpoint import decode, encode, load_member

SHAPE = VitShape(8, 1, 2, 1, 2, 8, 12, 3)


def written(root: Path) -> Path:
    model = StackedVit(SHAPE, 2)
    model.initialise([0, 1])
    path = root / "best.safetensors"
    path.write_bytes(encode(model.member_state(1), {"shape": vars(SHAPE)})[0])
    return path


def test_the_pair_of_files_says_the_same() -> None:
    """The tensor file carries the info too; tensors come back bit by bit, empty ones as well."""
    turned = torch.arange(4.0).reshape(2, 2).T
    tensors = {"a": torch.randn(2, 3), "b": turned, "c": torch.empty(0, 5)}
    content, text = encode(tensors, {"images": "ä"})
    again, info = decode(content, "x")
    told = json.loads(text)
    assert told.pop("sha256") == hashlib.sha256(content).hexdigest()
    assert told == info == {"format": 1, "images": "ä"}
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Written by safetensors itself, with the info where format 1 has it."""
    info = {"format": 1, "images": "checksum"}
    path = tmp_path / "state-3.safetensors"
    save_file({"params": torch.ones(3)}, path, metadata={"info": json.dumps(info, indent=1)})
    tensors, read = decode(path.read_bytes(), "x")
    assert read == info and tensors["params"].tolist() == [1, 1, 1]


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
