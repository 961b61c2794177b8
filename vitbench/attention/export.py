"""From a results folder to maps, plates and scores in `attention/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitbench import data
from vitbench.analysis import attention_plates, attention_scores, results
from vitbench.analysis.attention_summary import summarise
from vitbench.attention.maps import METHODS, Maps, compute, faithfulness
from vitbench.config import Dataset
from vitbench.data.image_set import ImageSet, Split
from vitbench.errors import UserError
from vitbench.model.vit import StackedVit
from vitbench.training.checkpoint import load_member

_PLATE_ROWS, _PLATE_FAILURES = 6, 2
_FACE_REGIONS = ("eyes", "mouth", "eye_corners", "hair_band")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Subject:
    """One trained model and the test images that it has not seen."""

    trial_id: str
    model: StackedVit
    info: dict[str, Any]
    images: ImageSet

    @property
    def names(self) -> tuple[str, ...]:
        """What the outputs are called."""
        label = self.info["label"]
        return (f"not {label}", label) if label is not None else self.images.classes

    @property
    def truth(self) -> NDArray[np.int64]:
        """The right output of each test image."""
        label = self.info["label"]
        if label is not None:
            return self.images.binary_targets("test", label)
        return self.images.test.targets[:, 0]

    def normalised(self, images: NDArray[np.uint8]) -> Tensor:
        """Images as the model was trained on them: [B, C, Y, X]."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).float() / 255.0
        mean = torch.tensor(self.images.mean).view(-1, 1, 1)
        std = torch.tensor(self.images.std).view(-1, 1, 1)
        return (pixels - mean) / std


def choose(found: results.Results, wanted: str, label: str | None) -> str:
    """The trial to look at: `best` by validation loss, or one by (the beginning of) its id.

    Raises:
        UserError: if there is none, several, or none with a checkpoint.
    """
    trials = found.trials[found.trials["checkpoint"].notna()]
    if label is not None:
        trials = trials[trials["label"] == label]
    if trials.empty:
        which = f" with label {label}" if label is not None else ""
        raise UserError(f"{found.folder}: no trial{which} has a checkpoint; see trials.csv")
    if wanted == "best":
        return str(trials.sort_values("best_val_loss", kind="stable")["trial_id"].iloc[0])
    ids = [str(i) for i in trials["trial_id"] if str(i).startswith(wanted)]
    if len(ids) != 1:
        how_many = "no trial" if not ids else f"{len(ids)} trials"
        raise UserError(
            f"--trial {wanted}: {how_many} with a checkpoint begin so; use an id of trials.csv"
        )
    return ids[0]


def open_subject(found: results.Results, trial_id: str, data_dir: Path | None) -> Subject:
    """Load a trial's best weights and the images that it was trained on.

    Raises:
        UserError: if the checkpoint is damaged or the images are not those of the training.
    """
    checkpoint = found.trials.loc[found.trials["trial_id"] == trial_id, "checkpoint"].iloc[0]
    model, info = load_member(found.folder / str(checkpoint))
    dataset = Dataset.model_validate(found.sweep["dataset"])
    images = data.load(dataset, data_dir)
    if images.checksum != info["images"]["checksum"]:
        raise UserError(
            f"{found.folder}: trial {trial_id} was trained on other images of "
            f"{info['images']['name']} (checksum {info['images']['checksum'][:12]}, here "
            f"{images.checksum[:12]}); name their folder with --data"
        )
    return Subject(trial_id, model, info, images)


def export_best(folder: Path, *, top: int, count: int, data_dir: Path | None) -> list[str]:
    """Export the best trials of a sweep, by validation loss; returns their ids."""
    found = results.load(folder)
    trials = found.trials[found.trials["checkpoint"].notna()]
    best = trials.sort_values("best_val_loss", kind="stable")["trial_id"].head(top)
    for trial_id in best:
        export(found, open_subject(found, str(trial_id), data_dir), count=count)
    return [str(trial_id) for trial_id in best]


def export(
    found: results.Results,
    subject: Subject,
    *,
    count: int,
    seed: int = 0,
    layer: int = -1,
    method: str = "last",
) -> list[str]:
    """Score a model on `count` test images and draw its plate; returns the summary in words.

    Writes into `<results>/attention/`: `plate_<trial>.png` and `.pdf`, single pictures, the raw
    maps as `maps_<trial>.npz`, and the trial's rows of `attention.parquet` and
    `attention_summary.csv`.
    """
    folder = found.folder / "attention"
    folder.mkdir(exist_ok=True)
    test, name = subject.images.test, subject.trial_id
    drawn = np.random.default_rng(seed).permutation(len(test))[: min(count, len(test))]
    chosen = test.take(drawn)
    pixels = subject.normalised(chosen.images)
    maps = compute(subject.model, pixels, layer)
    rows = _rows(subject, chosen, drawn, maps, pixels, seed=seed, layer=layer)
    _merge(folder / "attention.parquet", pd.DataFrame(rows), name)
    summary = summarise(pd.DataFrame(rows))
    _merge(folder / "attention_summary.csv", summary.assign(trial_id=name), name)
    _merge(folder / "attention_distance.csv", _distances(subject, maps), name)
    arrays: dict[str, Any] = {"test_index": drawn, "heads": maps.heads_BHM, **maps.by_method}
    np.savez_compressed(folder / f"maps_{name}.npz", **arrays)
    _draw_plate(found, subject, folder, seed=seed, layer=layer, method=method)
    return attention_plates.words(summary)


def _rows(
    subject: Subject,
    chosen: Split,
    drawn: NDArray[np.int64],
    maps: Maps,
    pixels: Tensor,
    *,
    seed: int,
    layer: int,
) -> list[dict[str, Any]]:
    """One row per image and method: scores, and the same under every control."""
    grid = subject.model.shape.patch_grid
    untrained = StackedVit(subject.model.shape, 1)
    untrained.initialise([subject.info["config"]["train"]["seed"]])
    before = compute(untrained, pixels, layer)
    covers = _regions(chosen, grid)
    truth = subject.truth[drawn]
    faithful = faithfulness(subject.model, pixels, maps.by_method, seed=seed)
    rows: list[dict[str, Any]] = []
    for method in METHODS:
        map_BM = maps.by_method[method]
        mean_BM = np.repeat(map_BM.mean(axis=0, keepdims=True), len(map_BM), axis=0)
        deletion, insertion = faithful[method]
        columns: dict[str, Array] = {
            "entropy": attention_scores.entropy(map_BM),
            "effective_patches": attention_scores.effective_patches(map_BM),
            "effective_patches_untrained": attention_scores.effective_patches(
                before.by_method[method]
            ),
            "cls_self_mass": maps.self_mass_B,
            "deletion": deletion,
            "insertion": insertion,
        }
        for region, cover_BM in covers.items():
            others = np.roll(cover_BM, 1, axis=0)
            for key, value in (
                ("share", attention_scores.share(map_BM, cover_BM)),
                ("lift", attention_scores.lift(map_BM, cover_BM)),
                ("pointing", attention_scores.pointing_game(map_BM, cover_BM)),
                ("lift_uniform", np.ones(len(map_BM))),
                ("lift_untrained", attention_scores.lift(before.by_method[method], cover_BM)),
                ("lift_other_image", attention_scores.lift(map_BM, others)),
                ("lift_mean_map", attention_scores.lift(mean_BM, cover_BM)),
                ("pointing_other_image", attention_scores.pointing_game(map_BM, others)),
            ):
                columns[f"{region}_{key}"] = value
        for place in range(len(map_BM)):
            rows.append(
                {
                    "trial_id": subject.trial_id,
                    "label": subject.info["label"],
                    "method": method,
                    "test_index": int(drawn[place]),
                    "truth": subject.names[truth[place]],
                    "predicted": subject.names[maps.predicted_B[place]],
                    "patches": grid**2,
                    **{key: float(values[place]) for key, values in columns.items()},
                }
            )
    return rows


def _regions(chosen: Split, grid: int) -> dict[str, Array]:
    """Patch cover of each region by image: landmarks where there are any, else the ink."""
    if chosen.landmarks is None:
        masks = {"ink": [attention_scores.ink_region(image) for image in chosen.images]}
    else:
        side = chosen.images.shape[-1]
        faces = [
            attention_scores.landmark_regions(marks.astype(np.float64), side, _FACE_REGIONS)
            for marks in chosen.landmarks
        ]
        masks = {name: [face[name] for face in faces] for name in _FACE_REGIONS}
    return {
        name: attention_scores.patch_cover(np.stack(stack), grid) for name, stack in masks.items()
    }


def _distances(subject: Subject, maps: Maps) -> pd.DataFrame:
    """Mean attention distance of every layer and head in pixels, beside uniform attention's."""
    shape = subject.model.shape
    distance_LBH = attention_scores.mean_distance(
        maps.attention_LBHTT, shape.patch_grid, shape.image_size
    )
    mean_LH = distance_LBH.mean(axis=1)
    return pd.DataFrame(
        {
            "trial_id": subject.trial_id,
            "layer": layer + 1,
            "head": head + 1,
            "distance_px": mean_LH[layer, head],
            "uniform_px": attention_scores.uniform_distance(shape.patch_grid, shape.image_size),
        }
        for layer in range(shape.depth)
        for head in range(shape.heads)
    )


def _draw_plate(
    found: results.Results, subject: Subject, folder: Path, *, seed: int, layer: int, method: str
) -> None:
    """Successes and failures in the order of a seeded draw over all test images."""
    test = subject.images.test
    order = np.random.default_rng(seed + 1).permutation(len(test))[:512]
    with torch.no_grad():
        logits = subject.model(subject.normalised(test.images[order]).unsqueeze(0)).squeeze(0)
    outputs = logits.argmax(1).numpy() if logits.shape[1] > 1 else (logits[:, 0] > 0).numpy()
    right = outputs == subject.truth[order]
    failures = order[~right][:_PLATE_FAILURES]
    shown = np.concatenate([order[right][: _PLATE_ROWS - len(failures)], failures])
    draw(found, subject, test.images[shown], subject.truth[shown], folder, layer, method)


def draw(
    found: results.Results,
    subject: Subject,
    images: NDArray[np.uint8],
    truth: Sequence[int] | NDArray[np.int64] | None,
    folder: Path,
    layer: int = -1,
    method: str = "last",
    name: str | None = None,
) -> None:
    """Draw input, map and overlay of some images, as one plate and as single pictures."""
    maps = compute(subject.model, subject.normalised(images), layer)
    captions = []
    for place, predicted in enumerate(maps.predicted_B):
        p = maps.probability_BO[place, predicted]
        caption = f"predicted {subject.names[predicted]} ({p:.2f})"
        if truth is not None:
            caption += f", is {subject.names[truth[place]]}"
        captions.append(caption)
    depth = subject.model.shape.depth
    what = {
        "last": f"layer {layer % depth + 1} of {depth}, CLS to patches, mean over heads",
        "rollout": "attention rollout",
        "gradient": "gradient-weighted attention of the predicted class",
    }[method]
    label = f", label {subject.info['label']}" if subject.info["label"] else ""
    title = f"Attention of trial {subject.trial_id}{label}: {what} ({found.subtitle})"
    attention_plates.save_plate(
        images, maps.by_method[method], captions, title, folder, name or subject.trial_id
    )


def _merge(path: Path, rows: pd.DataFrame, trial_id: str) -> None:
    """Replace a trial's rows in a table that other trials share."""
    is_parquet = path.suffix == ".parquet"
    if path.is_file():
        before = pd.read_parquet(path) if is_parquet else pd.read_csv(path)
        rows = pd.concat([before[before["trial_id"] != trial_id], rows], ignore_index=True)
    if is_parquet:
        rows.to_parquet(path, index=False)
        rows.to_csv(path.with_suffix(".csv"), index=False)
    else:
        rows.to_csv(path, index=False)
