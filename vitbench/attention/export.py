"""From a results folder to maps, plates and scores in `attention/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitbench.analysis import results
from vitbench.analysis.attention import figures as attention_figures
from vitbench.analysis.findings.render import sentence
from vitbench.analysis.labels import numbers as labels
from vitbench.attention import scores as attention_scores
from vitbench.attention.maps import METHODS, Maps, compute, faithfulness
from vitbench.attention.subject import Subject, open_images, open_subject
from vitbench.attention.summary import summarise
from vitbench.data.image_set import ImageSet, Split
from vitbench.model.vit import StackedVit

_PLATE_ROWS, _PLATE_FAILURES = 6, 2
_MAX_LABELS, _MAX_SPREAD = 12, 200
_FACE_REGIONS = ("eyes", "mouth", "eye_corners", "hair_band")
Array = NDArray[np.float64]


def export_best(folder: Path, *, top: int, count: int, data_dir: Path | None) -> list[str]:
    """Export the best trials of a sweep, by validation loss; returns the names of their plates.

    Where labels are compared, losses of different labels are not: `top` is shared out between the
    labels, at least one trial each. How far every other trial spreads its attention, and on which
    regions, is recorded, too.
    """
    found = results.load(folder)
    images = open_images(found, data_dir)
    names = []
    for trial_id, label in _best(found, images, top):
        subject = open_subject(found, trial_id, images, label)
        export(found, subject, count=count)
        names.append(subject.key)
    spread(found, images, count=count)
    return names


def _best(found: results.Results, images: ImageSet, top: int) -> list[tuple[str, str | None]]:
    """The best trials, as (trial, label)."""
    trials = found.trials[found.trials["checkpoint"].notna()]
    trials = trials.sort_values("best_val_loss", kind="stable")
    if trials["label"].notna().any():
        names = list(trials["label"].dropna().unique())
        each = max(1, top // len(names))
        return [
            (str(trial_id), str(label))
            for label in names
            for trial_id in trials.loc[trials["label"] == label, "trial_id"].head(each)
        ]
    if not images.classes:  # models of all labels: the best one, through each label
        return [
            (str(trial_id), label)
            for label in images.labels[:_MAX_LABELS]
            for trial_id in trials["trial_id"].head(max(1, top // len(images.labels)))
        ]
    return [(str(trial_id), None) for trial_id in trials["trial_id"].head(top)]


def spread(found: results.Results, images: ImageSet, *, count: int, seed: int = 0) -> pd.DataFrame:
    """How widely and where trials look, all on the same test images: `attention/spread.csv`.

    Columns: `trial_id`, `effective_patches` (mean over `images` test images of the last layer's
    CLS-to-patch map), `effective_patches_rollout`, `<region>_lift` (mean of the same map's),
    `patches`, `images`. Looked at are, where labels are compared, all seeds of each label's chosen
    settings, else the best 200 trials; models of all labels are seen as one, whatever the label.
    """
    trials = found.trials[found.trials["checkpoint"].notna()]
    chosen = labels.chosen(found)
    if len(chosen):
        trials = trials[trials["trial_id"].isin(chosen["trial_id"])]
    trials = trials.sort_values("best_val_loss", kind="stable").head(_MAX_SPREAD)
    if trials.empty:
        return pd.DataFrame()
    firsts = trials.drop_duplicates("label")["trial_id"]
    drawn = shared_images([open_subject(found, str(i), images) for i in firsts], count, seed)
    shown = images.test.take(drawn)
    rows = []
    for trial_id in trials["trial_id"]:
        subject = open_subject(found, str(trial_id), images)
        grid = subject.model.shape.patch_grid
        maps = compute(subject.model, subject.normalised(shown.images)).by_method
        row = {
            "trial_id": subject.trial_id,
            "effective_patches": attention_scores.effective_patches(maps["last"]).mean(),
            "effective_patches_rollout": attention_scores.effective_patches(maps["rollout"]).mean(),
            "patches": grid**2,
            "images": len(drawn),
        }
        for region, cover_BM in _regions(shown, grid).items():
            row[f"{region}_lift"] = np.nanmean(attention_scores.lift(maps["last"], cover_BM))
        rows.append(row)
    table = pd.DataFrame(rows)
    folder = found.folder / "attention"
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / "spread.csv", index=False)
    return table


def shared_images(subjects: Sequence[Subject], count: int, seed: int) -> NDArray[np.int64]:
    """About `count` test images, of which the draw of each subject's label is an equal share."""
    each = max(2, count // len(subjects))
    return np.unique(np.concatenate([subject.drawn(each, seed) for subject in subjects]))


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
    name = subject.key
    drawn = subject.drawn(count, seed)
    chosen = subject.images.test.take(drawn)
    pixels = subject.normalised(chosen.images)
    maps = compute(subject.model, pixels, layer)
    rows = _rows(subject, chosen, drawn, maps, pixels, seed=seed, layer=layer)
    _merge(folder / "attention.parquet", pd.DataFrame(rows))
    summary = summarise(pd.DataFrame(rows))
    who = {"trial_id": subject.trial_id, "label": subject.label}
    _merge(folder / "attention_summary.csv", summary.assign(**who))
    _merge(folder / "attention_distance.csv", _distances(subject, maps).assign(**who))
    arrays: dict[str, Any] = {"test_index": drawn, "heads": maps.heads_BHM, **maps.by_method}
    np.savez_compressed(folder / f"maps_{name}.npz", **arrays)
    _draw_plate(found, subject, folder, seed=seed, layer=layer, method=method)
    return [sentence(lift) for lift in attention_figures.lifts_of_model(summary)]


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
                    "label": subject.label,
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
    """Successes and failures in the order of a seeded draw over the test images.

    Of a label the successes are as many with it as without, as far as there are.
    """
    test = subject.images.test
    order = np.random.default_rng(seed + 2).permutation(subject.drawn(512, seed + 1))
    with torch.no_grad():
        logits = subject.model(subject.normalised(test.images[order]).unsqueeze(0)).squeeze(0)
    outputs = logits.argmax(1).numpy() if logits.shape[1] > 1 else (logits[:, 0] > 0).numpy()
    right = outputs == subject.truth[order]
    failures = order[~right][:_PLATE_FAILURES]
    wanted, successes = _PLATE_ROWS - len(failures), order[right]
    if subject.label is not None:
        has_it = subject.truth[successes] == 1
        some = successes[has_it][: wanted // 2]
        successes = np.concatenate([some, successes[~has_it]])
    shown = np.concatenate([successes[:wanted], failures])
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
    label = f", label {subject.label}" if subject.label else ""
    title = f"Attention of trial {subject.trial_id}{label}: {what} ({found.subtitle})"
    attention_figures.save_plate(
        images, maps.by_method[method], captions, title, folder, name or subject.key
    )


def _merge(path: Path, rows: pd.DataFrame) -> None:
    """Replace a trial's rows (of one label) in a table that other trials share."""
    is_parquet = path.suffix == ".parquet"
    if path.is_file():
        before = pd.read_parquet(path) if is_parquet else pd.read_csv(path)
        old, new = (
            frame["trial_id"].astype("string") + "/" + frame["label"].astype("string").fillna("")
            for frame in (before, rows)
        )
        rows = pd.concat([before[~old.isin(new)], rows], ignore_index=True)
    if is_parquet:
        rows.to_parquet(path, index=False)
        rows.to_csv(path.with_suffix(".csv"), index=False)
    else:
        rows.to_csv(path, index=False)
