"""From a results folder to maps, plates and scores in `attention/`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitbench.analysis.attention import figures as attention_figures
from vitbench.analysis.attention import rate_maps
from vitbench.analysis.findings.arms import named_trials
from vitbench.analysis.findings.render import sentence, spelled_out
from vitbench.analysis.labels import numbers as labels
from vitbench.analysis.results import Results, load
from vitbench.analysis.statistics import mean_interval
from vitbench.attention import scores
from vitbench.attention.maps import INPUT_GRADIENT, Maps, compute, faithfulness, one_thread
from vitbench.attention.subject import Subject, open_images, open_subject, showing
from vitbench.data.image_set import ImageSet, Split
from vitbench.errors import UserError

_PLATE_IMAGES, _PLATE_FAILURES = 8, 2
_MAX_LABELS, _MAX_SPREAD = 12, 200
_FACTS = {"trial_id", "label", "method", "test_index", "truth", "predicted", "patches"}
Array = NDArray[np.float64]


def _quiet(stage: str, done: int, of: int) -> None:
    """Say nothing."""


@one_thread()
def export_best(
    folder: Path,
    *,
    top: int,
    count: int,
    data_dir: Path | None,
    watch: Callable[[str, int, int], None] = _quiet,
) -> list[str]:
    """Export the best trials of a sweep, by validation loss; returns the names of their plates.

    Where labels are compared, losses of different labels are not: `top` is shared out between the
    labels, at least one trial each. Of each model that shows no attention the best trial is
    exported by its input gradients, of each label that it learned. How far every other trial
    spreads its attention, and on which regions, is recorded, too. `watch` is told the stage, the
    models done and how many there are.
    """
    results = load(folder)
    images = open_images(results, data_dir)
    shown, silent = showing(results)
    names = []
    best = _best(shown, images, top)
    for _, trials in silent.groupby("model"):
        best += _best(dataclasses.replace(results, trials=trials), images, top=1)
    for done, (trial_id, label) in enumerate(best):
        watch("attention maps of the best models", done, len(best))
        subject = open_subject(results, trial_id, images, label)
        export(results, subject, count=count)
        names.append(subject.key)
    _spread(shown, images, count, watch)
    return names


def _best(results: Results, images: ImageSet, top: int) -> list[tuple[str, str | None]]:
    """The best trials, as (trial, label)."""
    trials = results.trials[results.trials["checkpoint"].notna()]
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


def _spread(
    results: Results, images: ImageSet, count: int, watch: Callable[[str, int, int], None]
) -> None:
    """How widely and where trials look, all on the same test images: `attention/spread.csv`.

    Columns: `trial_id`, `effective_patches` (mean over `images` test images of the last layer's
    CLS-to-patch map), `effective_patches_rollout`, `<region>_lift` (mean of the same map's),
    `patches`, `images`. Looked at are, where labels are compared, all seeds of each label's chosen
    settings, else the best 200 trials; models of all labels are seen as one, whatever the label.
    Maps of the same images at each learning rate go into `maps_by_lr.csv`.
    """
    trials = results.trials[results.trials["checkpoint"].notna()]
    chosen = labels.chosen(results)
    if len(chosen):
        trials = trials[trials["trial_id"].isin(chosen["trial_id"])]
    trials = trials.sort_values("best_val_loss", kind="stable").head(_MAX_SPREAD)
    if trials.empty:
        return
    firsts = trials.drop_duplicates("label")["trial_id"]
    drawn = shared_images([open_subject(results, str(i), images) for i in firsts], count, seed=0)
    shown = images.test.take(drawn)
    rates, by_rate = rate_maps.trials_of_rates(results, trials), {}
    rows = []
    for done, trial_id in enumerate(map(str, trials["trial_id"])):
        watch("spread of attention of all models", done, len(trials))
        subject = open_subject(results, trial_id, images)
        computed = compute(subject.model, subject.normalised(shown.images))
        maps, grid = computed.by_method, computed.patch_grid
        row = {
            "trial_id": trial_id,
            "effective_patches": scores.effective_patches(maps["last"]).mean(),
            "effective_patches_rollout": scores.effective_patches(maps["rollout"]).mean(),
            "patches": grid**2,
            "images": len(drawn),
        }
        if trial_id in rates:
            some = maps["last"][: rate_maps.IMAGES] * grid**2
            by_rate[rates[trial_id]] = some.reshape(-1, grid, grid)
        for region, cover_BM in _regions(shown, grid).items():
            row[f"{region}_lift"] = np.nanmean(scores.lift(maps["last"], cover_BM))
        rows.append(row)
    pd.DataFrame(rows).to_csv(_folder(results) / "spread.csv", index=False)
    if by_rate:
        rate_maps.write(_folder(results), shown.images[: rate_maps.IMAGES], by_rate)


def shared_images(subjects: Sequence[Subject], count: int, seed: int) -> NDArray[np.int64]:
    """About `count` test images, of which the draw of each subject's label is an equal share."""
    each = max(2, count // len(subjects))
    return np.unique(np.concatenate([subject.drawn(each, seed) for subject in subjects]))


def export(
    results: Results,
    subject: Subject,
    *,
    count: int,
    seed: int = 0,
    layer: int = -1,
    method: str | None = None,
) -> list[str]:
    """Score a model on `count` test images and draw its plate; returns the summary in words.

    Writes into `<results>/attention/`: `plate_<trial>.png` and `.pdf`, single pictures, the raw
    maps as `maps_<trial>.npz`, and the trial's rows of `attention.parquet` and
    `attention_summary.csv`.
    """
    folder, name = _folder(results), subject.key
    drawn = subject.drawn(count, seed)
    chosen = subject.images.test.take(drawn)
    pixels = subject.normalised(chosen.images)
    maps = compute(subject.model, pixels, layer)
    rows = _rows(subject, chosen, drawn, maps, pixels, seed=seed, layer=layer)
    _merge(folder / "attention.parquet", rows)
    summary = summarise(rows)
    who = {"trial_id": subject.trial_id, "label": subject.label}
    _merge(folder / "attention_summary.csv", summary.assign(**who))
    if len(maps.attention_LBHTT):
        _merge(folder / "attention_distance.csv", _distances(subject, maps).assign(**who))
    arrays: dict[str, Any] = {"test_index": drawn, "heads": maps.heads_BHM, **maps.by_method}
    np.savez_compressed(folder / f"maps_{name}.npz", **arrays)
    _draw_plate(results, subject, seed=seed, layer=layer, method=method)
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
) -> pd.DataFrame:
    """One row per image and method: scores, and the same under every control."""
    grid = maps.patch_grid
    before = compute(subject.untrained(), pixels, layer)
    covers = _regions(chosen, grid)
    faithful = faithfulness(subject.model, pixels, maps.by_method, seed=seed)
    names = np.array(subject.names)
    tables = []
    for method, map_BM in maps.by_method.items():
        before_BM = before.by_method[method]
        mean_BM = np.broadcast_to(map_BM.mean(axis=0), map_BM.shape)
        deletion, insertion = faithful[method]
        columns: dict[str, Any] = {
            "trial_id": subject.trial_id,
            "label": subject.label,
            "method": method,
            "test_index": drawn,
            "truth": names[subject.truth[drawn]],
            "predicted": names[maps.predicted_B],
            "patches": grid**2,
            "entropy": scores.entropy(map_BM),
            "effective_patches": scores.effective_patches(map_BM),
            "effective_patches_untrained": scores.effective_patches(before_BM),
            "cls_self_mass": maps.self_mass_B,
            "deletion": deletion,
            "insertion": insertion,
        }
        for region, cover_BM in covers.items():
            others_BM = np.roll(cover_BM, 1, axis=0)
            columns |= {
                f"{region}_share": scores.share(map_BM, cover_BM),
                f"{region}_lift": scores.lift(map_BM, cover_BM),
                f"{region}_pointing": scores.pointing_game(map_BM, cover_BM),
                f"{region}_lift_uniform": 1.0,
                f"{region}_lift_untrained": scores.lift(before_BM, cover_BM),
                f"{region}_lift_other_image": scores.lift(map_BM, others_BM),
                f"{region}_lift_mean_map": scores.lift(mean_BM, cover_BM),
                f"{region}_pointing_other_image": scores.pointing_game(map_BM, others_BM),
            }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % t interval of every score over images, by method.

    Lifts also get the paired difference to the strongest control (`margin`): another image's
    region. An interval of it above 0 says that the model looks at this image's region, not at
    where such regions usually are.

    Columns: method, score, images, mean, low, high, margin, margin_low, margin_high.
    """
    results = []
    for method, part in rows.groupby("method", sort=False):
        for score in (name for name in rows.columns if name not in _FACTS):
            values = part[score].dropna().to_numpy(dtype=float)
            if len(values) == 0:
                continue
            row = {"method": method, "score": score, "images": len(values)}
            row |= dict(zip(("mean", "low", "high"), _interval(values), strict=True))
            control = f"{score}_other_image"
            if control in part:
                paired = (part[score] - part[control]).dropna().to_numpy(dtype=float)
                row |= dict(
                    zip(("margin", "margin_low", "margin_high"), _interval(paired), strict=True)
                )
            results.append(row)
    return pd.DataFrame(results)


def _interval(values: Array) -> tuple[float, float, float]:
    """Mean and t interval; none from fewer than three images."""
    if not len(values):
        return math.nan, math.nan, math.nan
    mean = mean_interval(values)
    return mean.mean, *mean.ends


def _regions(chosen: Split, grid: int) -> dict[str, Array]:
    """Patch cover of each region by image: landmarks where there are any, else the ink."""
    if chosen.landmarks is None:
        masks = {"ink": [scores.ink_region(image) for image in chosen.images]}
    else:
        side = chosen.images.shape[-1]
        faces = [
            scores.landmark_regions(marks.astype(np.float64), side) for marks in chosen.landmarks
        ]
        masks = {name: [face[name] for face in faces] for name in faces[0]}
    return {name: scores.patch_cover(np.stack(stack), grid) for name, stack in masks.items()}


def _distances(subject: Subject, maps: Maps) -> pd.DataFrame:
    """Mean attention distance of every layer and head in pixels, beside uniform attention's."""
    place = (maps.patch_grid, subject.model.shape.image_size)
    mean_LH = scores.mean_distance(maps.attention_LBHTT, *place).mean(axis=1)
    layer_LH, head_LH = np.indices(mean_LH.shape) + 1
    return pd.DataFrame(
        {
            "layer": layer_LH.ravel(),
            "head": head_LH.ravel(),
            "distance_px": mean_LH.ravel(),
            "uniform_px": scores.uniform_distance(*place),
        }
    )


def _draw_plate(
    results: Results, subject: Subject, *, seed: int, layer: int, method: str | None
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
    wanted, successes = _PLATE_IMAGES - len(failures), order[right]
    if subject.label is not None:
        has_it = subject.truth[successes] == 1
        some = successes[has_it][: wanted // 2]
        successes = np.concatenate([some, successes[~has_it]])
    shown = np.concatenate([successes[:wanted], failures])
    draw(results, subject, test.images[shown], subject.truth[shown], layer, method)


def draw(
    results: Results,
    subject: Subject,
    images: NDArray[np.uint8],
    truth: NDArray[np.int64] | None,
    layer: int,
    method: str | None,
    names: Sequence[str] = (),
) -> list[tuple[str, float]]:
    """Draw input, map, overlay and prediction; returns each image's class and its probability.

    With `names`, those of the images, they are a user's own and their plate is `plate_photos`.
    Without a method the first that the model has is drawn.
    """
    maps = compute(subject.model, subject.normalised(images), layer)
    method = method or next(iter(maps.by_method))
    if method not in maps.by_method:
        there = " or ".join(maps.by_method)
        raise UserError(f"--method {method}: this model has none; use {there}")
    grid = maps.patch_grid
    squares = maps.by_method[method].reshape(-1, grid, grid) * grid**2
    shown = [
        attention_figures.Shown(
            image,
            square,
            probabilities,
            truth=None if truth is None else int(truth[number]),
            name=names[number] if names else "",
        )
        for number, (image, square, probabilities) in enumerate(
            zip(images, squares, maps.probability_BO, strict=True)
        )
    ]
    depth = len(maps.attention_LBHTT)
    of = "Input gradient" if method == INPUT_GRADIENT else "Attention"
    what = {
        "last": f"layer {layer % max(1, depth) + 1} of {depth}, CLS to patches, mean over heads",
        "rollout": "attention rollout",
        "gradient": "gradient-weighted attention of the predicted class",
        INPUT_GRADIENT: "|d logit / d pixel| of the predicted class; it shows no attention",
    }[method]
    title = f"{of} of {who(results, subject)}: {what} ({results.subtitle})"
    place = _folder(results), "photos" if names else subject.key
    attention_figures.save_plate(shown, subject.names, title, *place, of=of.lower())
    return [
        (subject.names[predicted], float(of_output[predicted]))
        for predicted, of_output in zip(maps.predicted_B, maps.probability_BO, strict=True)
    ]


def who(results: Results, subject: Subject) -> str:
    """A model in words: its settings, seed, and rank by validation loss at any epoch."""
    trials = named_trials(results).set_index("trial_id")
    row = trials.loc[subject.trial_id]
    alike = trials[trials["label"].eq(row["label"]) | trials["label"].isna()]
    rank = int((alike["best_val_loss"] < row["best_val_loss"]).sum()) + 1
    parts = [] if row["arm"] == "all" else [str(row["arm"])]
    if subject.label is not None and pd.isna(row["label"]):
        parts.append(f"label {subject.label}")
    parts.append(f"seed {row['seed']}")
    words = spelled_out(", ".join(parts))
    return f"{words} (rank {rank} of {len(alike)} by validation loss)"


def _folder(results: Results) -> Path:
    folder = results.folder / "attention"
    folder.mkdir(exist_ok=True)
    return folder


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
