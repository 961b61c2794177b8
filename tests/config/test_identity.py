"""Ids of trials: the same for ever, also when settings are added or defaults change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vitbench.config import (
    AXES,
    Dataset,
    Model,
    SharedTrain,
    Train,
    TrialConfig,
    identity,
    is_stackable,
    load_results_sweep,
)
from vitbench.plan import expand, shape_key

SECTIONS = {"dataset": Dataset, "model": Model, "train": Train}
OLD = Path(__file__).parents[1] / "old_results"
FACES = Dataset(name="faces", labels=["Eyeglasses", "Smiling", "Wavy_Hair"])
SMALL = Model(patch_grid=8, depth=4, width=48, mlp=96)
ON_FACES = {"epochs": 10, "batch_size": 32, "lr": 0.002, "train_images": 6000}
ON_FACES |= {"val_images": 1000, "test_images": 2000}


@pytest.mark.parametrize(
    ("trial", "trial_id"),
    [
        (TrialConfig(dataset=Dataset(name="mnist"), model=Model(), train=Train()), "33b6b4a33289"),
        (
            TrialConfig(
                dataset=FACES,
                model=SMALL,
                train=Train.model_validate({**ON_FACES, "label": "Eyeglasses"}),
            ),
            "733c86cc6723",  # the first row of tests/old_results/celeba_labels
        ),
        (
            TrialConfig(
                dataset=Dataset(name="mnist"),
                model=Model(patch_grid=2, depth=3, heads=2, width=8, dropout=0.1),
                train=Train(lr=1e-5, seed=7, optimizer="sgd", clip_norm=1.0, schedule="cosine"),
            ),
            "0abec2b5ad0c",
        ),
    ],
)
def test_ids_stay_what_they_are(trial: TrialConfig, trial_id: str) -> None:
    """Every results folder in the world names its trials by these."""
    assert (trial.trial_id, identity.ID_VERSION) == (trial_id, 1)


@pytest.mark.parametrize("name", ["celeba_labels", "label_control"])
def test_shipped_results_have_the_ids_of_their_sweeps(name: str) -> None:
    """In order: what a resume finds done are these."""
    trials = pd.read_parquet(OLD / name / "trials.parquet")
    found = [trial.trial_id for trial in expand(load_results_sweep(OLD / name))]
    assert found == trials["trial_id"].tolist()


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_stands_in_one_table(section: str) -> None:
    """Whoever adds a setting puts it into identity.ADDED, or old results are not found."""
    frozen, added = identity.FROZEN[section], identity.ADDED[section]
    assert set(SECTIONS[section].model_fields) <= set(frozen) | set(added)
    assert not set(frozen) & set(added)


def test_a_new_default_moves_no_id_of_a_trial_that_names_the_old_value() -> None:
    """What counts is the value that a trial trains with, not where it comes from."""

    class Train2(Train):
        momentum: float = 0.5

    class Trial2(TrialConfig):
        train: Train2

    now = TrialConfig(dataset=FACES, model=SMALL, train=Train(momentum=0.9))
    later = Trial2(dataset=FACES, model=SMALL, train=Train2(momentum=0.9))
    assert later.trial_id == now.trial_id
    assert Trial2(dataset=FACES, model=SMALL, train=Train2()).trial_id != now.trial_id


def test_an_added_setting_enters_an_id_only_where_it_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reason for all this: old results stay found when the code grows."""

    class Train2(Train):
        ema: float = 0.0

    class Trial2(TrialConfig):
        train: Train2

    def trial(**train: Any) -> Trial2:
        return Trial2(dataset=FACES, model=SMALL, train=Train2(**train))

    now = [TrialConfig(dataset=FACES, model=SMALL, train=Train(seed=seed)) for seed in range(3)]
    with pytest.raises(KeyError, match="ema"):
        assert trial().trial_id
    monkeypatch.setitem(identity.ADDED, "train", {**identity.ADDED["train"], "ema": 0.0})
    later = [trial(seed=seed) for seed in range(3)]
    assert [t.trial_id for t in later] == [t.trial_id for t in now]
    assert shape_key(later[0]) == shape_key(now[0])
    assert trial(ema=0.5).trial_id != now[0].trial_id
    assert len({trial(ema=value).trial_id for value in (0.0, 0.5, 0.9)}) == 3


def test_images_that_moved_are_the_same_images() -> None:
    """An id names a user's folder by its name: what lies in it is told by its checksum."""
    here, there, other = (
        TrialConfig(
            dataset=Dataset(name="folder", path=path), model=Model(), train=Train()
        ).trial_id
        for path in ("/home/a/photos", "/mnt/b/photos", "/home/a/paintings")
    )
    assert here == there != other


def test_a_removed_setting_leaves_the_ids_of_the_others() -> None:
    """Its frozen default stands in for it."""
    content = TrialConfig(dataset=FACES, model=SMALL, train=Train()).model_dump(mode="json")
    before = identity.trial_id(content)
    del content["train"]["momentum"]
    assert identity.trial_id(json.loads(json.dumps(content))) == before


def test_only_stackable_settings_are_missing_from_the_shared_ones() -> None:
    """`stackable` is declared on the field; the type of what a stack shares follows it."""
    own = set(Train.model_fields) - set(SharedTrain.model_fields)
    assert own == {name for name in AXES if is_stackable(name)}
