"""Maps of one model on some images, and whether the patches that they name matter to it.

Shape legend: B images, M patches, G patches per side, T tokens (CLS first).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitbench.attention.scores import patch_map
from vitbench.model.attention import (
    attend,
    gradient_weighted,
    input_gradient,
    rollout,
    shows_attention,
)
from vitbench.model.stacked import StackedModel
from vitbench.model.vit import StackedVit

Array = NDArray[np.float64]
_RANDOM_ORDERS, _MOST_STEPS = 3, 16
_MOST_GRID = 8  # squares per side of a map of pixels
INPUT_GRADIENT = "input_gradient"


@dataclass(frozen=True)
class Maps:
    """What a model does with some images.

    `by_method` holds CLS-to-patch maps, [B, M], rows sum to 1: of the `last` layer (mean over
    heads), `rollout` and, of the built-in ViT, `gradient`. A model that shows no attention has
    `input_gradient` alone, averaged over squares of pixels, and no layer and no head.
    """

    by_method: dict[str, Array]
    heads_BHM: Array  # the chosen layer's map of each head
    self_mass_B: Array  # attention that CLS keeps for itself in that layer, mean over heads
    attention_LBHTT: Array  # every layer and head
    probability_BO: Array  # that is predicted; of a single output, of 0 and of 1

    @property
    def patch_grid(self) -> int:
        """Patches per side."""
        return isqrt(next(iter(self.by_method.values())).shape[-1])

    @property
    def predicted_B(self) -> NDArray[np.int64]:
        """The class (or 0/1) that the model predicts."""
        return np.asarray(self.probability_BO.argmax(axis=1), dtype=np.int64)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: on a few images of a small model others only wait for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compute(model: StackedModel, images_BCYX: Tensor, layer: int = -1) -> Maps:
    """All maps of a model on normalised images; `layer` chooses another than the last."""
    if not shows_attention(model):
        return _from_pixels(model, images_BCYX)
    with torch.no_grad():
        layers, logits_BO = attend(model, images_BCYX)
        attention_LBHTT = torch.stack(layers)
        rolled_BTT = rollout(attention_LBHTT)
    heads_BHT = layers[layer][:, :, 0].double().numpy()
    heads_BHM, _ = patch_map(heads_BHT)
    last_BM, self_mass_B = patch_map(heads_BHT.mean(axis=1))
    by_method = {"last": last_BM, "rollout": patch_map(rolled_BTT[:, 0].double().numpy())[0]}
    if isinstance(model, StackedVit):
        gradient_BT = gradient_weighted(model, images_BCYX).double().numpy()
        gradient_BT[:, 1:] += 1e-12  # an image without any positive weight has a uniform map
        by_method["gradient"] = patch_map(gradient_BT)[0]
    return Maps(
        by_method=by_method,
        heads_BHM=heads_BHM,
        self_mass_B=self_mass_B,
        attention_LBHTT=attention_LBHTT.double().numpy(),
        probability_BO=probabilities(logits_BO),
    )


def _from_pixels(model: StackedModel, images_BCYX: Tensor) -> Maps:
    """The maps of a model that shows no attention, over at most 8 x 8 squares of pixels."""
    pixels_BYX, logits_BO = input_gradient(model, images_BCYX)
    batch, side = pixels_BYX.shape[:2]
    grid = max(n for n in range(1, _MOST_GRID + 1) if side % n == 0)
    map_BGG = torch.nn.functional.avg_pool2d(pixels_BYX.double(), side // grid)
    map_BM = map_BGG.flatten(1).numpy() + 1e-12  # without any gradient the map is uniform
    nothing = np.empty((0, batch, 0, 0, 0))
    return Maps(
        by_method={INPUT_GRADIENT: map_BM / map_BM.sum(axis=1, keepdims=True)},
        heads_BHM=np.empty((batch, 0, grid**2)),
        self_mass_B=np.full(batch, np.nan),
        attention_LBHTT=nothing,
        probability_BO=probabilities(logits_BO),
    )


def probabilities(logits_BO: Tensor) -> Array:
    """Softmax, or for a single output the probabilities of 0 and of 1."""
    if logits_BO.shape[1] == 1:
        one = torch.sigmoid(logits_BO.double())
        return torch.cat((1 - one, one), dim=1).numpy()
    return logits_BO.double().softmax(dim=1).numpy()


def faithfulness(
    model: StackedModel, images_BCYX: Tensor, by_method: dict[str, Array], *, seed: int
) -> dict[str, Array]:
    """How much faster the prediction falls (rises) along each map than in random order.

    Patches are blanked to the data set's mean (deletion) or uncovered on it (insertion), those
    with the most attention first; the score is the mean probability of the predicted class over
    all steps (arXiv:1806.07421), less the same in random order.

    Returns:
        Deletion and insertion of each method, [2, B]. Faithful maps have deletion below 0 and
        insertion above 0.
    """
    rng = np.random.default_rng(seed)
    shape = next(iter(by_method.values())).shape
    anyhow = np.tile(np.arange(shape[1]), (shape[0], 1))
    orders = [rng.permuted(anyhow, axis=1) for _ in range(_RANDOM_ORDERS)]
    random = np.mean([_areas(model, images_BCYX, order) for order in orders], axis=0)
    return {
        method: _areas(model, images_BCYX, np.argsort(-map_BM, axis=1, kind="stable")) - random
        for method, map_BM in by_method.items()
    }


def _areas(model: StackedModel, images_BCYX: Tensor, order_BM: NDArray[np.int64]) -> Array:
    """Mean probability of the predicted class while patches go (row 0) or come (row 1).

    Of many patches several go or come in one step.
    """
    batch, patches = order_BM.shape
    grid = isqrt(patches)
    px = images_BCYX.shape[-1] // grid
    rank = torch.from_numpy(np.argsort(order_BM, axis=1)).view(batch, 1, grid, grid)
    rank = rank.repeat_interleave(px, 2).repeat_interleave(px, 3)
    areas = np.zeros((2, batch))
    steps = np.linspace(0, patches, min(patches, _MOST_STEPS) + 1).round()
    with torch.no_grad():
        predicted = probabilities(model(images_BCYX.unsqueeze(0)).squeeze(0)).argmax(axis=1)
        for done in steps:
            for row, keep in enumerate((rank >= done, rank < done)):
                p = probabilities(model((images_BCYX * keep).unsqueeze(0)).squeeze(0))
                areas[row] += p[np.arange(batch), predicted] / len(steps)
    return areas
