"""Anybody's model of several labels seen through one of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from torch.nn.functional import one_hot

from vitbench.analysis.results import Results
from vitbench.attention.maps import compute, faithfulness
from vitbench.attention.subject import Subject, open_subject
from vitbench.config import Dataset, Model, Train, TrialConfig
from vitbench.data.image_set import ImageSet, Split
from vitbench.model.builders import of_shape
from vitbench.model.generic import GenericStack
from vitbench.plan import StackPlan
from vitbench.storage.checkpoints import Checkpoints
from vitbench.storage.place import Place
from vitbench.training.engine import fit


def labelled(images: ImageSet) -> ImageSet:
    """The same images; each class is a label that an image has or has not."""

    def split(part: Split) -> Split:
        has = one_hot(torch.from_numpy(part.targets[:, 0]), 3).numpy()
        return Split(part.images, has)

    parts = {name: split(getattr(images, name)) for name in ("train", "val", "test")}
    return dataclasses.replace(images, classes=(), **parts)


def trained(build: str, folder: Path) -> tuple[Results, ImageSet]:
    """One short training on all labels at once, and its results as far as they are asked for."""
    images = labelled(tiny.image_set(test=20))
    trial = TrialConfig(
        dataset=Dataset(name="digits", image_size=8),
        model=Model(build=f"sample_models:{build}"),
        train=Train(epochs=1, batch_size=5, lr=0.01),
    )
    store = Checkpoints(Place(str(folder)))
    plan = StackPlan((trial,))
    (told,) = fit(
        plan, images, device=torch.device("cpu"), report=lambda _: True, store=store
    ).trials
    row = {"trial_id": told.trial_id, "checkpoint": told.checkpoint}
    return Results(folder, pd.DataFrame([row]), pd.DataFrame(), {}, {}), images


@pytest.mark.parametrize("build", ["resnet", "dropout"])
def test_input_gradients_are_of_the_chosen_label(build: str, tmp_path: Path) -> None:
    """As torch differentiates that label's logit in the module alone; so are those untrained."""
    results, images = trained(build, tmp_path)
    trial_id = str(results.trials["trial_id"].iloc[0])
    maps = []
    for output, label in enumerate(images.labels):
        subject = open_subject(results, trial_id, images, label)
        assert subject.key == f"{trial_id}_{label}" and subject.names == (f"not {label}", label)
        pixels = subject.normalised(images.test.images)
        for model, module in (
            (subject.model, _module(subject, trained=True)),
            (subject.untrained(), _module(subject, trained=False)),
        ):
            found = compute(model, pixels)
            expected, has_it = _reference(module, pixels, output)
            np.testing.assert_allclose(found.by_method["input_gradient"], expected, atol=1e-6)
            np.testing.assert_allclose(found.probability_BO[:, 1], has_it, atol=1e-6)
        faithful = faithfulness(subject.model, pixels, found.by_method, seed=0)
        assert np.isfinite(faithful["input_gradient"]).all()
        maps.append(compute(subject.model, pixels).by_method["input_gradient"])
    assert not np.allclose(maps[0], maps[1], atol=1e-3), "each label has a map of its own"


def test_own_attention_is_the_same_for_every_label(tmp_path: Path) -> None:
    """Maps of a module that shows attention are of the whole model, its predictions of a label."""
    results, images = trained("pooled", tmp_path)
    trial_id = str(results.trials["trial_id"].iloc[0])
    subjects = [open_subject(results, trial_id, images, label) for label in images.labels]
    pixels = subjects[0].normalised(images.test.images)
    found = [compute(subject.model, pixels) for subject in subjects]
    for one in found:
        assert set(one.by_method) == {"last", "rollout"}
        np.testing.assert_array_equal(one.by_method["last"], found[0].by_method["last"])
    with torch.no_grad():
        logits = _module(subjects[0], trained=True)(pixels).double()
    told = np.stack([one.probability_BO[:, 1] for one in found], axis=1)
    np.testing.assert_allclose(told, logits.sigmoid().numpy(), atol=1e-6)


def _module(subject: Subject, *, trained: bool) -> torch.nn.Module:
    """The user's module as it is called without any stack, all its outputs."""
    stack = of_shape(subject.info["shape"], members=1)
    assert isinstance(stack, GenericStack)
    stack.initialise([subject.info["config"]["train"]["seed"]])
    if trained:
        stack.load_member(0, subject.model.member_state(0))
    return stack.loaded()


def _reference(
    module: torch.nn.Module, pixels: torch.Tensor, output: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the gradient of one logit, image by image, as shares; and that label's probability.

    Images of 8x8 pixels have a square of the map for each pixel.
    """
    maps, has_it = [], []
    for image in pixels:
        asked = image.clone().requires_grad_()
        logit = module(asked.unsqueeze(0))[0, output]
        logit.backward()
        size = asked.grad.double().abs().sum(dim=0).flatten() + 1e-12
        maps.append((size / size.sum()).numpy())
        has_it.append(torch.sigmoid(logit.double()).item())
    return np.stack(maps), np.array(has_it)
