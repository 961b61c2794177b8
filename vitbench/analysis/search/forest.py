"""A random forest over settings, and the share of its variance that each setting explains alone.

scikit-learn is imported where a forest is grown, and nowhere else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitbench.analysis.statistics import Floats


def levels(values: pd.Series) -> Floats:
    """Values as their places in [0, 1]: K different ones at (k + 1/2) / K in rising order.

    Trees see the order of values alone, so a logarithmic axis needs no care. Text and missing
    values are in alphabetical order.
    """
    if not pd.api.types.is_numeric_dtype(values):
        values = values.astype("object").map(str)
    codes, different = pd.factorize(values, sort=True, use_na_sentinel=False)
    return np.asarray((codes + 0.5) / len(different), dtype=np.float64)


# Regression trees as scikit-learn has them, each fitted to a bootstrap sample of N suggestions of
# D settings, with the suggestions that it was not fitted to.
Forest = list[tuple[Any, npt.NDArray[np.intp]]]


def grow(levels_ND: Floats, loss_N: Floats, trees: int, rng: np.random.Generator) -> Forest:
    """A random forest (Breiman 2001) whose trees may split on any setting at every node."""
    from sklearn.tree import DecisionTreeRegressor

    places_ND = np.ascontiguousarray(levels_ND, dtype=np.float32)
    count = len(loss_N)
    forest: Forest = []
    for _ in range(trees):
        weight_N = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        tree = DecisionTreeRegressor(min_samples_leaf=2, random_state=0)
        tree.fit(places_ND, loss_N, sample_weight=weight_N, check_input=False)
        forest.append((tree.tree_, np.flatnonzero(weight_N == 0)))
    return forest


def shares(forest: Forest) -> Floats:
    """The share of the variance that each setting explains alone, mean over trees, shape [D]."""
    mean_D: Floats = np.mean([_main_effects(tree) for tree, _ in forest], axis=0)
    return mean_D


def out_of_bag(
    forest: Forest, levels_ND: Floats, loss_N: Floats, rng: np.random.Generator
) -> tuple[Floats, float]:
    """How much worse losses that trees were not fitted to are predicted without each setting.

    The rise of the mean squared error when the setting's values are shuffled among those
    suggestions, over the variance of the loss, mean over trees, shape [D] (Breiman 2001,
    doi:10.1023/A:1010933404324); and R^2 of the forest's out-of-bag predictions.
    """
    places_ND = np.ascontiguousarray(levels_ND, dtype=np.float32)
    settings = places_ND.shape[1]
    rise_D = np.zeros(settings)
    sum_N, times_N = np.zeros(len(loss_N)), np.zeros(len(loss_N))
    for tree, rows in forest:
        if len(rows) < 2:
            continue
        # The rows as they are, then with one setting after the other shuffled.
        places = np.tile(places_ND[rows], (settings + 1, 1, 1))
        for d in range(settings):
            places[d + 1, :, d] = rng.permutation(places[0, :, d])
        guess = tree.predict(places.reshape(-1, settings)).reshape(settings + 1, len(rows))
        error = ((guess - loss_N[rows]) ** 2).mean(axis=1)
        rise_D += error[1:] - error[0]
        sum_N[rows] += guess[0]
        times_N[rows] += 1
    known_N = times_N > 0
    rest = loss_N[known_N] - sum_N[known_N] / times_N[known_N]
    spread = float(loss_N[known_N].var())
    return rise_D / (len(forest) * spread), 1.0 - float((rest**2).mean()) / spread


def _main_effects(tree: Any) -> Floats:
    """Variance of a tree's prediction averaged over all other settings, over its variance: [D].

    Every leaf is a box of [0, 1]^D in which the prediction is constant, so all integrals are sums
    over leaves (Hutter et al. 2014, algorithm 2).
    """
    low_LD, high_LD, value_L = _leaves(tree)
    size_LD = high_LD - low_LD
    volume_L = size_LD.prod(axis=1)
    mean = float(value_L @ volume_L)
    variance = float((value_L - mean) ** 2 @ volume_L)
    share_D = np.zeros(tree.n_features)
    if variance <= 0.0:
        return share_D
    for d in np.unique(tree.feature[tree.feature >= 0]):
        edges_S = np.unique(np.append(low_LD[:, d], 1.0))
        middle_S = (edges_S[:-1] + edges_S[1:]) / 2
        inside_SL = (low_LD[:, d] <= middle_S[:, None]) & (middle_S[:, None] < high_LD[:, d])
        marginal_S = inside_SL @ (value_L * volume_L / size_LD[:, d])
        share_D[d] = (marginal_S - mean) ** 2 @ np.diff(edges_S) / variance
    return share_D


def _leaves(tree: Any) -> tuple[Floats, Floats, Floats]:
    """Lower and upper corner of each leaf's box, [L, D] each, and the prediction there, [L]."""
    left, right = tree.children_left.tolist(), tree.children_right.tolist()
    feature, threshold = tree.feature.tolist(), tree.threshold.tolist()
    low_KD = np.zeros((tree.node_count, tree.n_features))
    high_KD = np.ones_like(low_KD)
    for node, (below, above) in enumerate(zip(left, right, strict=True)):
        if below >= 0:  # parents come before their children
            low_KD[below] = low_KD[above] = low_KD[node]
            high_KD[below] = high_KD[above] = high_KD[node]
            high_KD[below, feature[node]] = low_KD[above, feature[node]] = threshold[node]
    leaf_K = tree.children_left < 0
    return low_KD[leaf_K], high_KD[leaf_K], tree.value[leaf_K, 0, 0]
