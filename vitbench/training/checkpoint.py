"""The files of a checkpoint: safetensors and a small JSON, one folder per trial.

    <trial id>/state-<epoch>.safetensors   weights and optimiser, to go on from
    <trial id>/best.safetensors            weights of the epoch of lowest validation loss
    <trial id>/last.safetensors            weights of the last epoch

Each file belongs to one member alone, so a member loads without its neighbours, and stacks may be
put together differently after a resume. The state of the epoch before is removed only when all
members of the stack have written theirs; a stack killed in between goes on from the last epoch
that all of them have.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vitbench import user_code
from vitbench.errors import UserError
from vitbench.model.builders import of_shape
from vitbench.model.stacked import StackedModel
from vitbench.user_code import Code

FORMAT = 1


class CheckpointStore(Protocol):
    """Where the training loop keeps checkpoints (storage.checkpoints is one such place)."""

    def name(self, trial_id: str, kind: str) -> str:
        """The file of a trial's `best`, `last` or `state-<epoch>`, from the results folder."""

    def save(
        self, trial_id: str, kind: str, tensors: Mapping[str, Tensor], info: Mapping[str, Any]
    ) -> None:
        """Write tensors and info; either both are there in whole or the old ones are."""

    def save_predictions(self, trial_id: str, content: bytes) -> None:
        """Keep a parquet file of what the trial's model says of the test images."""

    def common_epoch(self, trial_ids: Sequence[str]) -> int:
        """The last epoch of which every one of the trials has a whole state; 0 if none."""

    def load_state(self, trial_id: str, epoch: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read the state of an epoch: flat rows by name, and its info."""

    def keep_only(self, trial_ids: Sequence[str], epoch: int | None) -> None:
        """Remove the states of all other epochs (for None of all, once the trials are over)."""


def encode(tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The content of a checkpoint's two files: safetensors, and the info as JSON.

    The JSON also travels inside the tensor file: the pair cannot come apart. Beside it stands the
    checksum of that file, too.
    """
    told = {"format": FORMAT, **info}
    text = json.dumps(told, indent=1)
    content = save({k: t.contiguous() for k, t in tensors.items()}, metadata={"info": text})
    told["sha256"] = hashlib.sha256(content).hexdigest()
    return content, json.dumps(told, indent=1).encode()


def decode(content: bytes, where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and info of a safetensors file; no code from the file is run.

    Raises:
        UserError: naming `where` it lies, if it is damaged, no checkpoint, or of another format.
    """
    try:
        tensors = load(content)
        # Its header: the length of a JSON text in 8 bytes, then the text.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        info = json.loads(header.get("__metadata__", {}).get("info", ""))
    except (SafetensorError, ValueError, AttributeError) as error:
        raise UserError(
            f"{where}: is damaged or not a checkpoint of vitbench ({error}); "
            f"train the trial again with --resume"
        ) from error
    found = info.get("format") if isinstance(info, dict) else None
    if found != FORMAT:
        raise UserError(
            f"{where}: has checkpoint format {found}, this version reads {FORMAT}; "
            f"use the vitbench version named in the results' environment.json"
        )
    return tensors, info


def load_member(path: Path) -> tuple[StackedModel, dict[str, Any]]:
    """Load one trained model as a stack of one, whoever it was trained with.

    A user's module is built by the code that lies with the results, where it lies in their folder.

    Returns:
        The model, and the info written with it: trial_id, config, shape, epoch, metrics, the
        image set's name, checksum, mean, std, classes and the label.

    Raises:
        UserError: if the file is missing, as `decode`, or if the tensors do not fit the shape
            that the file states.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); check the trial's id, or train it again "
            f"with --resume"
        ) from None
    tensors, info = decode(content, str(path))
    with contextlib.suppress(OSError, ValueError, AttributeError):
        told = json.loads(path.with_suffix(".json").read_bytes()).get("sha256")
        if told not in (None, hashlib.sha256(content).hexdigest()):
            raise UserError(
                f"{path}: is not what was written (its checksum stands beside it); train the trial "
                f"again with --resume"
            )
    code = path.absolute().parents[2] / "code"
    try:
        if "build" in info["shape"] and code.is_dir():
            Code(user_code.read(code), str(code)).use()
        model = of_shape(info["shape"], members=1)
        model.load_member(0, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its tensors do not fit the model it states: {error}") from error
    return model.eval(), info
