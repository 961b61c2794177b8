"""Image sets: fixed subsets, labels, digits, resizing, the cache under several processes."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from vitbench import data
from vitbench.config import Dataset
from vitbench.data.image_set import channel_statistics, resize, stratified_order
from vitbench.data.sets import digits
from vitbench.errors import UserError


def test_digits_are_split_by_class() -> None:
    """Every split holds every digit in nearly its share, and no image twice."""
    images = digits.load(16)
    assert [len(images.train), len(images.val), len(images.test)] == [1197, 300, 300]
    for split in (images.train, images.val, images.test):
        shares = np.bincount(split.targets[:, 0], minlength=10) / len(split)
        assert np.abs(shares - 0.1).max() < 0.02
    everything = np.concatenate([images.train.images, images.val.images, images.test.images])
    assert len({image.tobytes() for image in everything}) == 1797


def test_every_beginning_of_the_order_is_stratified() -> None:
    """A subset of any size has the classes' shares; the order is fixed."""
    targets = np.repeat([0, 1, 2], [600, 300, 100])
    order = stratified_order(targets)
    assert sorted(order) == list(range(1000))
    for count in (50, 200, 500):
        shares = np.bincount(targets[order[:count]], minlength=3) / count
        assert np.abs(shares - [0.6, 0.3, 0.1]).max() < 0.04
    np.testing.assert_array_equal(order, stratified_order(targets))


def test_smaller_subsets_are_the_beginnings_of_larger_ones() -> None:
    """More images never means other images."""
    images = tiny.image_set()
    small, large = images.subset(5, None, None), images.subset(9, None, None)
    np.testing.assert_array_equal(small.train.images, large.train.images[:5])
    assert len(small.val) == len(images.val)


def test_more_images_than_there_are_is_an_error() -> None:
    """The message names what was asked for and what there is."""
    with pytest.raises(UserError, match="train_images=23: tiny has 22 images"):
        tiny.image_set().subset(23, None, None)


def test_one_class_against_the_rest() -> None:
    """A label's targets are 1 where the class is that label; unknown labels are refused."""
    images = tiny.image_set()
    found = images.binary_targets("val", "b")
    np.testing.assert_array_equal(found, images.val.targets[:, 0] == 1)
    with pytest.raises(UserError, match="use one of a, b, c"):
        images.binary_targets("val", "d")


def test_resize_agrees_with_pillow() -> None:
    """Within one grey level, up and down, and constant images stay constant."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 1, 28, 28), dtype=np.uint8)
    for side in (32, 14):
        ours = resize(images, side)[:, 0]
        for image, found in zip(images[:, 0], ours, strict=True):
            picture = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
            difference = np.abs(np.asarray(picture, dtype=int) - found)
            assert difference.max() <= 1
    assert (resize(np.full((1, 3, 8, 8), 77, dtype=np.uint8), 32) == 77).all()


def test_channel_statistics_against_numpy() -> None:
    """Counted from histograms, equal to the plain formula."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 3, 6, 6), dtype=np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 2, 3)))


def _load(cache: Path) -> str:
    return data.load(Dataset(name="digits", image_size=8), None, cache).checksum


def test_several_processes_may_prepare_the_same_cache(tmp_path: Path) -> None:
    """Trials start side by side on a fresh machine; all open the same whole files."""
    # spawned, not forked: a fork beside torch's threads may never return
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(_load, [tmp_path] * 3))
    assert len(set(found)) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"digits-8", ".digits-8.lock"}
