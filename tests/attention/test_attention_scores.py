"""Attention scores against cases whose answer is known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vitbench.attention import scores


def test_uniform_attention_is_spread_over_all_patches() -> None:
    """The upper end of the scale: 64 patches count as 64."""
    uniform = np.full((3, 64), 1 / 64)
    np.testing.assert_allclose(scores.effective_patches(uniform), 64.0, rtol=1e-12)


def test_one_patch_is_one_effective_patch() -> None:
    """The lower end, with zeros in the logarithm."""
    assert scores.effective_patches(np.eye(16)[5]) == pytest.approx(1.0)


def test_patch_map_sets_the_cls_mass_aside() -> None:
    """What CLS keeps for itself says nothing about where it looks."""
    patches, self_mass = scores.patch_map(np.array([[0.6, 0.1, 0.3]]))
    np.testing.assert_allclose(patches, [[0.25, 0.75]])
    np.testing.assert_allclose(self_mass, [0.6])


def test_mean_distance_of_a_2x2_grid_by_hand() -> None:
    """16 px, 2x2: centres 8 px apart; uniform mean = (0 + 8 + 8 + 8 sqrt 2) / 4."""
    assert scores.uniform_distance(2, 16) == pytest.approx((16 + 8 * np.sqrt(2)) / 4)
    looks_at_itself = np.eye(5) * 0.5 + 0.5 * np.eye(5)[0]
    assert scores.mean_distance(looks_at_itself, 2, 16) == pytest.approx(0.0)


def test_patch_cover_is_fractional() -> None:
    """A region that fills a quarter of a patch counts a quarter of it."""
    mask = np.zeros((8, 8))
    mask[0:2, 4:6] = 1
    np.testing.assert_allclose(scores.patch_cover(mask, 2), [0, 0.25, 0, 0])


def test_lift_is_one_for_uniform_attention_whatever_the_region() -> None:
    """The chance level that every table row is read against."""
    rng = np.random.default_rng(0)
    cover = rng.random((20, 16))
    np.testing.assert_allclose(scores.lift(np.full((20, 16), 1 / 16), cover), 1.0)


def test_lift_of_a_map_inside_the_region() -> None:
    """All attention on a region of a quarter of the image: lift 4; empty regions have none."""
    a = np.array([[1.0, 0, 0, 0]])
    assert scores.lift(a, np.array([[1.0, 0, 0, 0]]))[0] == pytest.approx(4.0)
    assert np.isnan(scores.lift(a, np.zeros((1, 4)))[0])


def test_pointing_game_scores_ties_by_chance() -> None:
    """Uniform attention hits by the region's share of patches, not by the order of patches."""
    cover = np.array([[1.0, 0.5, 0, 0]])
    assert scores.pointing_game(np.full((1, 4), 0.25), cover)[0] == pytest.approx(0.5)
    assert scores.pointing_game(np.array([[0.1, 0.2, 0.4, 0.3]]), cover)[0] == 0


def test_landmark_regions_hold_their_landmarks() -> None:
    """Eyes lie in the eye band, mouth corners in the mouth band, and the regions stay apart."""
    face = np.array([[11.0, 14], [21, 14], [16, 19], [12, 23], [20, 23]])
    masks = scores.landmark_regions(face, 32)
    for x, y in face[:2]:
        assert masks["eyes"][int(y), int(x)] == 1
        assert masks["mouth"][int(y), int(x)] == 0
    for x, y in face[3:]:
        assert masks["mouth"][int(y), int(x)] == 1
    assert masks["hair_band"][int(face[2, 1]), int(face[2, 0])] == 0
    assert masks["hair_band"][2, 16] == 1
    assert 0 < masks["eye_corners"].mean() < masks["eyes"].mean() < 0.5


def test_regions_turn_with_the_face() -> None:
    """A face turned by 90 degrees has its eye band turned, too."""
    upright = np.array([[11.0, 14], [21, 14], [16, 19], [12, 23], [20, 23]])
    turned = np.stack([upright[:, 1], 32 - upright[:, 0]], axis=1)
    mask = scores.landmark_regions(upright, 32)["eyes"]
    turned_mask = scores.landmark_regions(turned, 32)["eyes"]
    np.testing.assert_array_equal(np.rot90(mask), turned_mask)


def test_ink_region_of_a_digit() -> None:
    """Bright pixels are ink, whatever the image's contrast."""
    image = np.zeros((1, 4, 4), dtype=np.uint8)
    image[0, 1, 1:3] = 90
    image[0, 2, 1] = 30
    assert scores.ink_region(image).sum() == 2
