"""Images and targets of one data set, as arrays; where they came from is not known here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitbench.errors import UserError

SPLITS = ("train", "val", "test")
_CHUNK = 4096  # images that are resized at once


@dataclass(frozen=True)
class Split:
    """One part of a data set."""

    images: NDArray[np.uint8]  # [N, C, Y, X], perhaps memory-mapped and read-only
    targets: NDArray[np.int64]  # [N, L]: class number (L = 1), or one 0/1 column per attribute
    landmarks: NDArray[np.float32] | None = None  # [N, points, 2], (x, y) in pixels, where known

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: NDArray[np.int64]) -> Split:
        """The images at these places, in this order."""
        marks = None if self.landmarks is None else self.landmarks[index]
        return Split(self.images[index], self.targets[index], marks)


@dataclass(frozen=True)
class ImageSet:
    """Train, validation and test images of one data set."""

    name: str  # of the data set that these images really are
    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]  # of target column 0; empty for attribute sets
    labels: tuple[str, ...]  # what a model may learn alone: the classes, or each column's attribute
    mean: tuple[float, ...]  # of each channel over the training images, in units of 0 to 1
    std: tuple[float, ...]
    checksum: str  # SHA-256 over content and settings
    source: str  # one sentence for people
    label_noise: float | None = None  # share of labels that are wrong on purpose, where known

    @classmethod
    def of(
        cls,
        name: str,
        splits: Sequence[Split],
        *,
        labels: Sequence[str],
        classes: Sequence[str] = (),
        checksum: str,
        source: str,
        label_noise: float | None = None,
    ) -> ImageSet:
        """An image set from its three splits; `mean` and `std` are those of the first."""
        train, val, test = splits
        facts = (tuple(classes), tuple(labels), *channel_statistics(train.images))
        return cls(name, train, val, test, *facts, checksum, source, label_noise)

    @property
    def channels(self) -> int:
        """Colour channels."""
        return int(self.train.images.shape[1])

    @property
    def image_size(self) -> int:
        """Pixels per side."""
        return int(self.train.images.shape[-1])

    @property
    def outputs(self) -> int:
        """Outputs of a model that is trained on all classes (or on all attributes)."""
        return len(self.classes) or len(self.labels)

    def binary_targets(self, split: str, label: str) -> NDArray[np.int64]:
        """Whether each image has the label: one class against the rest, or an attribute.

        Raises:
            UserError: if the data set has no such label.
        """
        if label not in self.labels:
            raise UserError(
                f"label: {label!r} is not a label of {self.name}; use one of "
                f"{', '.join(self.labels)}"
            )
        targets: NDArray[np.int64] = getattr(self, split).targets
        place = self.labels.index(label)
        return (targets[:, 0] == place).astype(np.int64) if self.classes else targets[:, place]

    def drawn(self, seed: int) -> NDArray[np.int64]:
        """All training images in the order in which a seed draws them, indices [N].

        Every beginning has nearly the shares of the classes, or of the patterns of attributes, and
        holds all smaller ones.
        """
        rng = np.random.default_rng([seed, *b"subset"])
        _, pattern = np.unique(self.train.targets, axis=0, return_inverse=True)
        return stratified_order(pattern.reshape(-1), rng)

    def matched(
        self,
        split: str,
        label: str,
        train_per_side: int,
        among: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """Images of a split with as many that have the label as do not, the same number for all.

        Of the training images `train_per_side` each are drawn; of validation and test images as
        many as every label of the data set has, so that all labels are judged on sets of one size
        and one base rate. What is drawn depends on the label alone, and seeds share it; unless
        training images are taken in the order of `among`, which a seed has drawn.

        Returns:
            Indices into the split, ascending, int64.

        Raises:
            UserError: if the split has too few images on a side.
        """
        sides = self._sides(split, label, among)
        fewest = min(map(len, sides))
        if split == "train":
            count = train_per_side
            if count > fewest:
                raise UserError(
                    f"train.matched={count}: of the {sum(map(len, sides)):,} training images of "
                    f"{self.name} {len(sides[0]):,} have {label} and {len(sides[1]):,} do not; "
                    f"use at most {fewest:,}"
                )
        else:
            counts = {name: min(map(len, self._sides(split, name))) for name in self.labels}
            rare = min(counts, key=counts.__getitem__)
            count = counts[rare]
            if count == 0:
                raise UserError(
                    f"train.matched: no image of the {split} split of {self.name} tells {rare} "
                    f"from its absence; use more images, or leave {rare} out of dataset.labels"
                )
        rng = np.random.default_rng(0)
        drawn = [(side if among is not None else rng.permutation(side))[:count] for side in sides]
        return np.sort(np.concatenate(drawn)).astype(np.int64)

    def _sides(
        self, split: str, label: str, among: NDArray[np.int64] | None = None
    ) -> list[NDArray[np.int64]]:
        """Indices of the images with the label, and of those without it, of all or of some."""
        target = self.binary_targets(split, label)
        index = np.arange(len(target)) if among is None else among
        return [index[target[index] == 1], index[target[index] == 0]]

    def subset(
        self, train_images: int | None, val_images: int | None, test_images: int | None
    ) -> ImageSet:
        """Cut the splits to fixed subsets, the same for every seed and machine.

        Raises:
            UserError: if a split has fewer images than asked for.
        """
        cut: dict[str, Any] = {}
        for name, count in zip(SPLITS, (train_images, val_images, test_images), strict=True):
            split: Split = getattr(self, name)
            if count is None or count == len(split):
                continue
            if count > len(split):
                raise UserError(
                    f"train.{name}_images={count}: {self.name} has {len(split)} images in this "
                    f"split; ask for at most that many, or leave it out for all"
                )
            cut[name] = split.take(stratified_order(split.targets[:, 0])[:count])
        return replace(self, **cut)


def stratified_order(
    targets: NDArray[np.int64], rng: np.random.Generator | None = None
) -> NDArray[np.int64]:
    """An order of all images in which every beginning has nearly the classes' shares.

    Each class is shuffled and spread evenly over 0 to 1; the order is that of those places. It is
    always the same if no generator is given.
    """
    rng = rng or np.random.default_rng(0)
    place = np.empty(len(targets))
    for value in np.unique(targets):
        members = np.flatnonzero(targets == value)
        place[rng.permutation(members)] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(place, kind="stable").astype(np.int64)


def resize(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Bilinear, antialiased resize of uint8 [N, C, Y, X] to [N, C, side, side].

    Agrees with Pillow's bilinear resize to within one grey level.
    """
    import torch
    from torch.nn.functional import interpolate

    out = np.empty((*images.shape[:2], side, side), dtype=np.uint8)
    for start in range(0, len(images), _CHUNK):
        part = torch.from_numpy(images[start : start + _CHUNK].astype(np.float32))
        resized = interpolate(part, size=(side, side), mode="bilinear", antialias=True)
        out[start : start + _CHUNK] = resized.round_().clamp_(0, 255).to(torch.uint8).numpy()
    return out


def channel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in units of 0 to 1.

    Counted from the histogram of grey levels, so the result is exact and needs no copy as floats.
    """
    means, stds = [], []
    levels = np.arange(256) / 255.0
    for channel in range(images.shape[1]):
        counts = np.bincount(images[:, channel].ravel(), minlength=256)
        mean = float((counts * levels).sum() / counts.sum())
        variance = float((counts * (levels - mean) ** 2).sum() / counts.sum())
        means.append(mean)
        stds.append(max(variance**0.5, 1e-6))
    return tuple(means), tuple(stds)
