"""Random forests over settings, and the share of their variance that each setting explains alone.

Many small trees are grown at once, level by level: scikit-learn's take as long, and importing it
takes a second, for which everybody who reads a search would wait.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitbench.analysis.statistics import Floats

Ints = npt.NDArray[np.intp]
_MIN_LEAF = 2  # different suggestions in a leaf


def levels(values: pd.Series) -> Floats:
    """Values as their places in [0, 1]: K different ones at (k + 1/2) / K in rising order.

    Trees see the order of values alone, so a logarithmic axis needs no care. Text and missing
    values are in alphabetical order.
    """
    if not pd.api.types.is_numeric_dtype(values):
        values = values.astype("object").map(str)
    codes, different = pd.factorize(values, sort=True, use_na_sentinel=False)
    return np.asarray((codes + 0.5) / len(different), dtype=np.float64)


@dataclass(frozen=True)
class Forest:
    """T regression trees over D settings of N suggestions; their K nodes in one list.

    Attributes:
        tree_K: the tree that each node belongs to; the first T nodes are the roots.
        setting_K: the setting that a node splits on; -1 of a leaf.
        edge_K: suggestions at or below this level go left.
        left_K: the node to the left; the one to the right is the next.
        mean_K: mean loss of a node, each suggestion as often as it was drawn.
        low_KD, high_KD: corners of a node's box in [0, 1]^D.
        left_out_TN: whether a tree has not seen a suggestion.
    """

    tree_K: Ints
    setting_K: Ints
    edge_K: Floats
    left_K: Ints
    mean_K: Floats
    low_KD: Floats
    high_KD: Floats
    left_out_TN: npt.NDArray[np.bool_]


def grow(levels_ND: Floats, loss_TN: Floats, drawn_TM: Ints, rng: np.random.Generator) -> Forest:
    """Regression trees that may split on any setting at every node (Breiman 2001).

    Every node is split where the squared error of its two means is least, until its losses are
    equal or no split leaves two different suggestions on either side. Of settings that split a
    node alike one is drawn.

    Args:
        levels_ND: of each suggestion and setting.
        loss_TN: losses that each tree is fitted to.
        drawn_TM: the suggestions that each tree is fitted to, a bootstrap sample.
        rng: for ties.
    """
    trees, count = loss_TN.shape
    cell_TM = drawn_TM + count * np.arange(trees)[:, None]
    times_TN = np.bincount(cell_TM.ravel(), minlength=loss_TN.size).reshape(trees, count)
    # An entry for each suggestion of a tree: the node where it is, counted within this depth.
    node_E, row_E = np.nonzero(times_TN)
    weight_E = times_TN[node_E, row_E].astype(np.float64)
    loss_E = loss_TN[node_E, row_E] - loss_TN.mean()
    tree_M = np.arange(trees)
    low_MD, high_MD = np.zeros((trees, levels_ND.shape[1])), np.ones((trees, levels_ND.shape[1]))
    made, first = [], 0
    while len(tree_M):
        split_M, setting_M, edge_M = _best_splits(node_E, levels_ND[row_E], weight_E, loss_E, rng)
        mean_M = np.bincount(node_E, weight_E * loss_E) / np.bincount(node_E, weight_E)
        child_M = np.where(split_M, 2 * np.cumsum(split_M) - 2, -1)  # places in the next depth
        first += len(tree_M)
        made.append((tree_M, setting_M, edge_M, first + child_M, mean_M, low_MD, high_MD))
        parents = np.flatnonzero(split_M)
        tree_M = np.repeat(tree_M[parents], 2)
        low_MD, high_MD = np.repeat(low_MD[parents], 2, 0), np.repeat(high_MD[parents], 2, 0)
        left = np.arange(0, len(tree_M), 2)
        high_MD[left, setting_M[parents]] = low_MD[left + 1, setting_M[parents]] = edge_M[parents]
        stays = split_M[node_E]
        node_E, row_E = node_E[stays], row_E[stays]
        weight_E, loss_E = weight_E[stays], loss_E[stays]
        right_E = levels_ND[row_E, setting_M[node_E]] > edge_M[node_E]
        node_E = child_M[node_E] + right_E
    tree_K, setting_K, edge_K, left_K, mean_K, low_KD, high_KD = map(
        np.concatenate, zip(*made, strict=True)
    )
    mean_K = mean_K + loss_TN.mean()
    return Forest(tree_K, setting_K, edge_K, left_K, mean_K, low_KD, high_KD, times_TN == 0)


def _best_splits(
    node_E: Ints,
    level_ED: Floats,
    weight_E: Floats,
    loss_E: Floats,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.bool_], Ints, Floats]:
    """For each node whether it is split, on which setting (-1 if not) and at which level.

    The squared error falls most where sum_left^2 / weight_left + sum_right^2 / weight_right is
    largest.
    """
    count_M, weight_M = np.bincount(node_E), np.bincount(node_E, weight_E)
    sum_M = np.bincount(node_E, weight_E * loss_E)
    square_M = np.bincount(node_E, weight_E * loss_E**2)
    first_M = np.cumsum(count_M) - count_M
    differs_M = square_M - sum_M**2 / weight_M > 1e-12 * square_M
    best_M = np.full(len(count_M), -np.inf)
    setting_M, edge_M = np.full(len(count_M), -1), np.full(len(count_M), np.nan)
    for d in range(level_ED.shape[1]):
        order = np.lexsort((level_ED[:, d], node_E))
        node, level, weight = node_E[order], level_ED[order, d], weight_E[order]
        left_w, left_s = np.cumsum(weight), np.cumsum(weight * loss_E[order])
        left_w -= (left_w[first_M] - weight[first_M])[node]
        left_s -= (left_s[first_M] - weight[first_M] * loss_E[order][first_M])[node]
        left_n = np.arange(1, len(node) + 1) - first_M[node]
        can = (left_n >= _MIN_LEAF) & (count_M[node] - left_n >= _MIN_LEAF)
        can[:-1] &= level[:-1] < level[1:]
        gain, at = np.full(len(node), -np.inf), np.flatnonzero(can)
        right_w, right_s = weight_M[node[at]] - left_w[at], sum_M[node[at]] - left_s[at]
        gain[at] = left_s[at] ** 2 / left_w[at] + right_s**2 / right_w
        most_M = np.maximum.reduceat(gain, first_M)
        drawn_M = most_M + 1e-9 * square_M * rng.random(len(most_M))  # among ties
        better_M = (drawn_M > best_M) & differs_M
        best_M = np.where(better_M, drawn_M, best_M)
        place_M = np.zeros(len(count_M), dtype=np.intp)
        reached = np.flatnonzero(can & (gain == most_M[node]))[::-1]
        place_M[node[reached]] = reached  # the first of equal ones
        setting_M = np.where(better_M, d, setting_M)
        next_M = np.minimum(place_M + 1, len(node) - 1)
        edge_M = np.where(better_M, (level[place_M] + level[next_M]) / 2, edge_M)
    return setting_M >= 0, setting_M, edge_M


def predict(forest: Forest, tree_E: Ints, level_ED: Floats) -> Floats:
    """What a tree foretells of a suggestion's levels, for E pairs of both."""
    node_E = tree_E.copy()
    moving = np.arange(len(node_E))
    while len(moving := moving[forest.setting_K[node_E[moving]] >= 0]):
        at = node_E[moving]
        right = level_ED[moving, forest.setting_K[at]] > forest.edge_K[at]
        node_E[moving] = forest.left_K[at] + right
    return forest.mean_K[node_E]


def shares(forest: Forest) -> Floats:
    """Variance of each tree's prediction averaged over all but one setting, over its variance.

    Every leaf is a box of [0, 1]^D in which the prediction is constant, so all integrals are sums
    over leaves (Hutter et al. 2014, algorithm 2). Shape [T, D].
    """
    leaf_K = forest.setting_K < 0
    return np.stack(
        [
            _main_effects(forest.low_KD[at], forest.high_KD[at], forest.mean_K[at])
            for tree in range(len(forest.left_out_TN))
            for at in [leaf_K & (forest.tree_K == tree)]
        ]
    )


def _main_effects(low_LD: Floats, high_LD: Floats, value_L: Floats) -> Floats:
    """Shares of one tree with L leaves, shape [D]."""
    size_LD = high_LD - low_LD
    volume_L = size_LD.prod(axis=1)
    mean = float(value_L @ volume_L)
    variance = float((value_L - mean) ** 2 @ volume_L)
    share_D = np.zeros(low_LD.shape[1])
    for d in range(len(share_D) if variance > 0.0 else 0):
        edges_S = np.unique(np.append(low_LD[:, d], 1.0))
        middle_S = (edges_S[:-1] + edges_S[1:]) / 2
        inside_SL = (low_LD[:, d] <= middle_S[:, None]) & (middle_S[:, None] < high_LD[:, d])
        marginal_S = inside_SL @ (value_L * volume_L / size_LD[:, d])
        share_D[d] = (marginal_S - mean) ** 2 @ np.diff(edges_S) / variance
    return share_D


def rises(forest: Forest, levels_ND: Floats, loss_TN: Floats, rng: np.random.Generator) -> Floats:
    """How much worse each tree predicts losses that it was not fitted to without a setting, [T, D].

    The rise of the mean squared error when the setting's values are shuffled among those
    suggestions (Breiman 2001, doi:10.1023/A:1010933404324), over the variance of the losses. Zero
    of a tree that has seen all suggestions but one.
    """
    tree_E, row_E = np.nonzero(forest.left_out_TN)
    count_T = forest.left_out_TN.sum(axis=1)
    loss_E, level_ED = loss_TN[tree_E, row_E], levels_ND[row_E]

    def error_T(level_ED: Floats) -> Floats:
        square_E = (predict(forest, tree_E, level_ED) - loss_E) ** 2
        mean_T: Floats = np.bincount(tree_E, square_E, len(count_T)) / np.maximum(count_T, 1)
        return mean_T

    as_it_is_T, spread_T = error_T(level_ED), loss_TN.var(axis=1)
    rise_TD = np.zeros((len(count_T), levels_ND.shape[1]))
    for d in range(levels_ND.shape[1]):
        shuffled_ED = level_ED.copy()  # within each tree, whose entries stand together
        shuffled_ED[:, d] = level_ED[np.lexsort((rng.random(len(tree_E)), tree_E)), d]
        rise_TD[:, d] = (error_T(shuffled_ED) - as_it_is_T) / spread_T
    return rise_TD


def out_of_bag_r2(forest: Forest, levels_ND: Floats, loss_N: Floats) -> float:
    """R^2 of the mean prediction over the trees that have not seen a suggestion."""
    tree_E, row_E = np.nonzero(forest.left_out_TN)
    times_N = forest.left_out_TN.sum(axis=0)
    sum_N = np.bincount(row_E, predict(forest, tree_E, levels_ND[row_E]), len(loss_N))
    known_N = times_N > 0
    rest = loss_N[known_N] - sum_N[known_N] / times_N[known_N]
    return 1.0 - float((rest**2).mean()) / float(loss_N[known_N].var())
