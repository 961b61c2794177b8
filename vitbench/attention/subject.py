"""The trained model that is looked at, and the test images that it has not seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitbench import data, user_code
from vitbench.analysis.results import Results
from vitbench.config import Dataset
from vitbench.data import decode, files
from vitbench.data.image_set import ImageSet
from vitbench.errors import UserError
from vitbench.model.attention import shows_attention
from vitbench.model.builders import of_shape
from vitbench.model.stacked import StackedModel
from vitbench.model.vit import StackedVit
from vitbench.training.checkpoint import load_member
from vitbench.user_code import Code
from vitbench.words import slug


@dataclass(frozen=True)
class Subject:
    """One trained model and the images of its data set."""

    trial_id: str
    model: StackedModel  # a stack of one
    info: dict[str, Any]  # what was written with its weights
    images: ImageSet  # the whole data set
    label: str | None  # that its one output tells; None where its outputs are classes

    @property
    def names(self) -> tuple[str, ...]:
        """What the outputs are called."""
        if self.label is not None:
            return (f"not {self.label}", self.label)
        return self.images.classes

    @property
    def truth(self) -> NDArray[np.int64]:
        """The right output of each test image."""
        if self.label is not None:
            return self.images.binary_targets("test", self.label)
        return self.images.test.targets[:, 0]

    @property
    def key(self) -> str:
        """Names its files: the trial, and the label where the trial learned several."""
        alone = _output(self.info, self.images, self.label) is None
        return self.trial_id if alone else f"{self.trial_id}_{slug(str(self.label))}"

    def untrained(self) -> StackedModel:
        """What it was before its training, seen through the same output."""
        model = of_shape(self.info["shape"], members=1)
        model.initialise([self.info["config"]["train"]["seed"]])
        return _seen_through(model.eval(), _output(self.info, self.images, self.label))

    def normalised(self, images: NDArray[np.uint8]) -> Tensor:
        """Images as the model was trained on them: [B, C, Y, X]."""
        pixels = torch.from_numpy(np.array(images)).float() / 255.0
        mean = torch.tensor(self.images.mean).view(-1, 1, 1)
        std = torch.tensor(self.images.std).view(-1, 1, 1)
        return (pixels - mean) / std

    def drawn(self, count: int, seed: int) -> NDArray[np.int64]:
        """Test images to score, by a seeded draw; with a label half of them have it.

        A rare label would be absent from a plain draw of a few images.
        """
        order = np.random.default_rng(seed).permutation(len(self.images.test))
        if self.label is None:
            return order[:count]
        truth = self.truth[order]
        sides = [order[truth == 1], order[truth == 0]]
        with_it = min(len(sides[0]), max(count // 2, count - len(sides[1])))
        return np.sort(np.concatenate([sides[0][:with_it], sides[1][: count - with_it]]))


def choose(results: Results, wanted: str, label: str | None) -> str:
    """The trial to look at: `best` by validation loss, or one by (the beginning of) its id.

    With a label only those are looked at that learned it, alone or among all.

    Raises:
        UserError: if there is none, several, or none with a checkpoint.
    """
    trials = results.trials[results.trials["checkpoint"].notna()]
    if label is not None:
        learned = results.labels.loc[results.labels["label"] == label, "trial_id"]
        trials = trials[(trials["label"] == label) | trials["trial_id"].isin(learned)]
    if trials.empty:
        which = f" with label {label}" if label is not None else ""
        raise UserError(f"{results.folder}: no trial{which} has a checkpoint; see trials.csv")
    if wanted == "best":
        return str(trials.sort_values("best_val_loss", kind="stable")["trial_id"].iloc[0])
    ids = [str(i) for i in trials["trial_id"] if str(i).startswith(wanted)]
    if len(ids) != 1:
        how_many = "no trial" if not ids else f"{len(ids)} trials"
        raise UserError(
            f"--trial {wanted}: {how_many} with a checkpoint begin so; use an id of trials.csv"
        )
    return ids[0]


def showing(results: Results) -> tuple[Results, pd.DataFrame]:
    """The results of those models alone that show attention, and the trials of those that do not.

    Where none shows any, the results have no trial.
    """
    if "model" not in results.trials:  # of an earlier version, which had ViTs alone
        return results, results.trials.head(0)
    trials = results.trials[results.trials["checkpoint"].notna()]
    silent = []
    for model, group in trials.groupby("model"):
        loaded, _ = _load(results, str(group["trial_id"].iloc[0]))
        if not shows_attention(loaded):
            silent.append(model)
    is_silent = results.trials["model"].isin(silent)
    shown = dataclasses.replace(results, trials=results.trials[~is_silent])
    return shown, results.trials[is_silent]


def _load(results: Results, trial_id: str) -> tuple[StackedModel, dict[str, Any]]:
    """A trial's best weights, as a stack of one."""
    checkpoint = results.trials.loc[results.trials["trial_id"] == trial_id, "checkpoint"].iloc[0]
    return load_member(results.folder / str(checkpoint))


def open_images(results: Results, data_dir: Path | None) -> ImageSet:
    """The images that a sweep was trained on."""
    code = results.folder / "code"
    if code.is_dir():  # what makes them, where they are not in the cache
        Code(user_code.read(code), str(code)).use()
    return data.load(Dataset.model_validate(results.sweep["dataset"]), data_dir)


def open_subject(
    results: Results, trial_id: str, images: ImageSet, label: str | None = None
) -> Subject:
    """Load a trial's best weights; `label` chooses an output of a model that learned all labels.

    Raises:
        UserError: if the checkpoint is damaged or the images are not those of the training.
    """
    model, info = _load(results, trial_id)
    if images.checksum != info["images"]["checksum"]:
        raise UserError(
            f"{results.folder}: trial {trial_id} was trained on other images of "
            f"{info['images']['name']} (checksum {info['images']['checksum'][:12]}, here "
            f"{images.checksum[:12]}); name their folder with --data"
        )
    if info["label"] is not None:
        label = info["label"]
    elif not images.classes:
        label = label or images.labels[0]
    model = _seen_through(model, _output(info, images, label))
    return Subject(trial_id, model, info, images, label)


def _output(info: Mapping[str, Any], images: ImageSet, label: str | None) -> int | None:
    """The number of the output that tells a label; None of a model that learned it alone."""
    alone = info["label"] is not None or label is None
    return None if alone else images.labels.index(str(label))


def _seen_through(model: StackedModel, output: int | None) -> StackedModel:
    """A model of several labels seen through one of them: the same body with one output."""
    if output is None:
        return model
    if not isinstance(model, StackedVit):  # anybody's module: it computes all, one is handed on
        model.register_forward_hook(lambda _, given, logits_KBO: logits_KBO[..., [output]])
        return model
    state = model.member_state(0)
    for name in ("head.weight", "head.bias"):
        state[name] = state[name][output : output + 1]
    alone = StackedVit(dataclasses.replace(model.shape, outputs=1), members=1)
    alone.load_member(0, state)
    return alone.eval()


def read_photos(paths: Sequence[Path], like: ImageSet) -> NDArray[np.uint8]:
    """A user's own pictures: their middle squares, resized like a data set's, [B, C, Y, X].

    Raises:
        UserError: if a file is missing or no picture.
    """
    photos = []
    for path in paths:
        try:
            content = files.read(path, decode.MOST_BYTES)
            photos.append(decode.decode(content, like.image_size, like.channels, None)[0])
        except FileNotFoundError:
            raise UserError(f"--image {path}: there is no such file; check the path") from None
        except Exception as error:  # Pillow reports what is broken in many ways
            reason = str(error).partition("<")[0].strip() or type(error).__name__
            raise UserError(
                f"--image {path}: is not a picture that can be read ({reason}); use another"
            ) from None
    return np.stack(photos)
