"""Training images that each seed draws: nested, stratified, different between seeds."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from rich.console import Console

from vitbench.config import SharedTrain, Sweep
from vitbench.data import subsets
from vitbench.data.image_set import ImageSet
from vitbench.data.prepare import prepare
from vitbench.data.sets import digits, mnist
from vitbench.errors import UserError

DIGITS = digits.load(8)


def drawn(images: ImageSet, count: int | None, seed: int, **train: object) -> np.ndarray:
    asked = SharedTrain.model_validate({"train_images": count, "subset": "per_seed", **train})
    return subsets.pool(subsets.cut(images, asked), "train", asked, None, seed)


def test_a_smaller_subset_lies_in_the_larger_ones_of_its_seed() -> None:
    """Growing a data set adds images and takes none away; no image stands twice."""
    sizes = [16, 40, 200, 1197]
    pools = [drawn(DIGITS, size, 3) for size in sizes]
    assert [len(set(pool)) for pool in pools] == sizes
    for small, large in itertools.pairwise(pools):
        assert set(small) < set(large)


def test_each_seed_draws_its_own_with_the_shares_of_the_classes() -> None:
    """Ten of each digit in a hundred, within one; two seeds share about as many as by chance."""
    first, other = drawn(DIGITS, 100, 0), drawn(DIGITS, 100, 1)
    for pool in (first, other):
        counts = np.bincount(DIGITS.train.targets[pool, 0], minlength=10)
        assert counts.min() >= 9 and counts.max() <= 11
    assert len(set(first) & set(other)) < 30  # 8 by chance
    np.testing.assert_array_equal(first, drawn(DIGITS, 100, 0))


def test_attributes_are_stratified_together() -> None:
    """All labels of a data set at once, so that models of several labels share their images."""
    rng = np.random.default_rng(0)
    targets = np.stack([rng.random(1197) < p for p in (0.1, 0.5, 0.3)], axis=1).astype(np.int64)
    train = replace(DIGITS.train, targets=targets)
    faces = replace(DIGITS, train=train, classes=(), labels=("a", "b", "c"))
    shares = targets[drawn(faces, 200, 5)].mean(axis=0)
    assert np.abs(shares - targets.mean(axis=0)).max() < 0.02


def test_matched_images_of_a_seed_are_nested_too() -> None:
    """As many with the label as without, out of the images that the seed draws."""
    pools = []
    for matched in (20, 60):
        asked = SharedTrain(matched=matched, subset="per_seed", train_images=900)
        pools.append(subsets.pool(DIGITS, "train", asked, "3", 2))
        has = DIGITS.binary_targets("train", "3")[pools[-1]]
        assert (int(has.sum()), len(has)) == (matched, 2 * matched)
    assert set(pools[0]) < set(pools[1]) <= set(drawn(DIGITS, 900, 2))
    asked = SharedTrain(matched=60, subset="per_seed", train_images=100)
    with pytest.raises(UserError, match="of the 100 training images"):
        subsets.pool(DIGITS, "train", asked, "3", 2)


def test_a_shared_subset_is_cut_out_and_the_same_for_all() -> None:
    """As before there was a choice: what is fixed for a sweep needs no index."""
    asked = SharedTrain(train_images=9)
    cut = subsets.cut(tiny.image_set(), asked)
    assert len(cut.train) == 9
    np.testing.assert_array_equal(subsets.pool(cut, "train", asked, None, None), np.arange(9))
    assert len(subsets.pool(cut, "val", asked, None, 4)) == len(cut.val)


def test_sizes_are_settled_before_anything_starts(tmp_path: Path) -> None:
    """A substitute has what it has, once; of the data set that is asked for more is an error."""

    def sizes(name: str, axis: list[int | None]) -> list[object]:
        dataset = {"name": name, "image_size": 8} | (
            {"offline": "digits"} if name == "mnist" else {}
        )
        search = {"space": {"train_images": axis, "seed": [0, 1]}}
        found = Sweep.model_validate({"name": "s", "dataset": dataset, "search": search})
        found = prepare(found, tmp_path, Console(quiet=True)).sweep
        return list(found.search.space["train_images"])  # type: ignore[arg-type]

    assert sizes("digits", [100, None]) == [100, 1197]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist, "download", lambda base: None)
        assert sizes("mnist", [500, 5000, 50000]) == [500, 1197]
    with pytest.raises(UserError, match="train_images=1200: digits has 1197 images"):
        sizes("digits", [100, 1200])
