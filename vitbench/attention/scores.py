"""Numbers for where a model looks: spread, reach, place. Pure numpy.

Shape legend: N images, H heads, T tokens (CLS first), M patches (T = M + 1), G patches per side.
A map is the attention of the CLS token to the patches, renormalised over them: a_NM sums to 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def patch_map(cls_row_NT: Array) -> tuple[Array, Array]:
    """Split a CLS attention row into a map over patches and the mass CLS keeps for itself.

    Args:
        cls_row_NT: attention of CLS to all tokens, shape [..., T], rows sum to 1.

    Returns:
        The map over patches [..., M], rows sum to 1, and the CLS self-mass [...]. Where CLS keeps
        all its attention to itself (a model that ran away) there is no map: NaN.
    """
    self_mass, patches = cls_row_NT[..., 0], cls_row_NT[..., 1:]
    total = patches.sum(axis=-1, keepdims=True)
    nothing = np.full_like(patches, np.nan)
    return np.divide(patches, total, out=nothing, where=total > 0), self_mass


def entropy(a_NM: Array) -> Array:
    """Entropy of each map in nats, shape [...]: 0 for one patch, ln M for uniform attention."""
    logs = np.log(np.where(a_NM > 0, a_NM, 1.0))
    return np.asarray(-np.sum(a_NM * logs, axis=-1))


def effective_patches(a_NM: Array) -> Array:
    """exp(entropy): how many patches the map is spread over, between 1 and M."""
    return np.asarray(np.exp(entropy(a_NM)))


def mean_distance(attention_TT: Array, grid: int, image_size: int) -> Array:
    """Mean attention distance in pixels: how far a patch looks, on average.

    (1/M) sum_ij A_ij |x_i - x_j| over patches, each row renormalised over patches
    (arXiv:2010.11929, its Figure 7; arXiv:2108.08810).

    Args:
        attention_TT: attention between tokens, CLS first, shape [..., T, T].
        grid: patches per side.
        image_size: pixels per side.
    """
    between = attention_TT[..., 1:, 1:]
    between = between / between.sum(axis=-1, keepdims=True)
    along = (np.arange(grid) + 0.5) * (image_size / grid)
    centres_M2 = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
    distance_MM = np.linalg.norm(centres_M2[:, None] - centres_M2, axis=-1)
    return np.asarray((between * distance_MM).sum(axis=-1).mean(axis=-1))


def uniform_distance(grid: int, image_size: int) -> float:
    """Mean attention distance in pixels of uniform attention, the value to compare with."""
    tokens = grid * grid + 1
    return float(mean_distance(np.full((tokens, tokens), 1.0 / tokens), grid, image_size))


def patch_cover(mask_NYX: Array, grid: int) -> Array:
    """Share of each patch that a region covers, 0 to 1: [..., side, side] -> [..., M], row by row.

    The mask is 1 inside and 0 outside; `grid`, the patches per side, divides the image side.
    """
    *lead, height, width = mask_NYX.shape
    cells = mask_NYX.reshape(*lead, grid, height // grid, grid, width // grid)
    return np.asarray(cells.mean(axis=(-3, -1)).reshape(*lead, grid * grid), dtype=np.float64)


def share(a_NM: Array, cover_NM: Array) -> Array:
    """Share of the attention inside a region; patches count by the part that is covered."""
    return np.asarray((a_NM * cover_NM).sum(axis=-1))


def lift(a_NM: Array, cover_NM: Array) -> Array:
    """Share inside the region over the region's share of the image; uniform attention gives 1.

    NaN where the region is empty.
    """
    area = cover_NM.mean(axis=-1)
    inside = share(a_NM, cover_NM)
    empty = np.full_like(inside, np.nan)
    return np.asarray(np.divide(inside, area, out=empty, where=area > 0))


def pointing_game(a_NM: Array, cover_NM: Array) -> Array:
    """Whether the patch with the most attention touches the region, 0 or 1 (arXiv:1608.00507).

    Ties count by the share of the tied patches that hit, so uniform attention gives the chance
    level rather than the fate of patch 0.
    """
    top = a_NM >= a_NM.max(axis=-1, keepdims=True) * (1 - 1e-9)
    return np.asarray((top * (cover_NM > 0)).sum(axis=-1) / top.sum(axis=-1))


def landmark_regions(landmarks_L2: Array, image_size: int) -> dict[str, Array]:
    """Regions of one face from CelebA's five landmarks, as 0/1 masks of the image.

    All lengths scale with the distance between the eyes, `d`:

    - eyes: the band around both eyes, 0.55 d beyond each and 0.45 d above and below;
    - mouth: the band around the mouth's corners, 0.25 d beyond each and 0.3 d above and below;
    - eye_corners: discs of 0.3 d around the outer corners of the eyes;
    - hair_band: the ring between 1.1 d and 2.4 d around the middle of the face, from the mouth up.

    The hair band is a weak region: landmarks say nothing about hair itself.

    Args:
        landmarks_L2: left eye, right eye, nose, left and right mouth corner, (x, y) in pixels.
        image_size: pixels per side.
    """
    yy, xx = np.mgrid[0:image_size, 0:image_size] + 0.5
    left_eye, right_eye, nose, left_mouth, right_mouth = landmarks_L2
    between = right_eye - left_eye
    d = max(float(np.linalg.norm(between)), 1e-6)
    out = 0.3 * d * (between / d)  # from an eye to its outer corner
    down = (left_mouth + right_mouth) / 2 - (left_eye + right_eye) / 2
    height = (xx - nose[0]) * down[0] + (yy - nose[1]) * down[1]
    ring = _disc(xx, yy, nose, 2.4 * d) - _disc(xx, yy, nose, 1.1 * d)
    return {
        "eyes": _band(xx, yy, left_eye, right_eye, 0.55 * d, 0.45 * d),
        "mouth": _band(xx, yy, left_mouth, right_mouth, 0.25 * d, 0.3 * d),
        "eye_corners": np.maximum(
            _disc(xx, yy, left_eye - out, 0.3 * d), _disc(xx, yy, right_eye + out, 0.3 * d)
        ),
        "hair_band": ring * (height < (down**2).sum() / 2),
    }


def ink_region(image_CYX: NDArray[np.uint8]) -> Array:
    """Where a digit's ink is: pixels brighter than half of the image's brightest."""
    grey = image_CYX.astype(np.float64).mean(axis=0)
    return np.asarray(grey > grey.max() / 2, dtype=np.float64)


def _band(xx: Array, yy: Array, a: Array, b: Array, beyond: float, half_height: float) -> Array:
    """1 inside the rectangle around the segment a-b, longer by `beyond` at both ends."""
    length = max(float(np.linalg.norm(b - a)), 1e-6)
    u = (b - a) / length
    along = (xx - a[0]) * u[0] + (yy - a[1]) * u[1]
    across = -(xx - a[0]) * u[1] + (yy - a[1]) * u[0]
    inside = (along >= -beyond) & (along <= length + beyond) & (np.abs(across) <= half_height)
    return np.asarray(inside, dtype=np.float64)


def _disc(xx: Array, yy: Array, centre: Array, radius: float) -> Array:
    inside = (xx - centre[0]) ** 2 + (yy - centre[1]) ** 2 <= radius**2
    return np.asarray(inside, dtype=np.float64)
