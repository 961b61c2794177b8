"""What one drawn face looks like before anything is drawn: pose, colours, hair, mouth.

Lengths are in units of the distance between the eyes, `d`. The face's frame has its origin midway
between the eyes, x to the right of the picture and y down. The proportions are those of CelebA's
aligned pictures, where d is 39 of 178 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # [P, 2], (x, y)
Colour = tuple[int, int, int]

EYE, NOSE_TIP, MOUTH = 0.5, 0.64, 1.05  # x of the eyes; y of the nose's tip and of the mouth

_SKIN = np.array([(88, 56, 40), (150, 104, 76), (205, 155, 122), (238, 200, 172)], dtype=float)
_PALE = np.array((250, 231, 222), dtype=float)
_HAIR = {
    "Black_Hair": (24, 20, 22),
    "Brown_Hair": (96, 60, 36),
    "Blond_Hair": (218, 182, 112),
    "Gray_Hair": (172, 172, 176),
}
_OTHER_HAIR = np.array([(140, 58, 30), (158, 128, 88), (60, 40, 34), (120, 34, 60)], dtype=float)


@dataclass(frozen=True)
class Look:
    """The choices that more than one part of a face depends on.

    Attributes:
        roll, scale, shift: the face's turn in the picture (radians), its size and its place (d).
        yaw: radians to the side; moves the features inside the head's outline.
        head: half width and jaw (0 round to 0.4 pointed).
        skin, hair, lips: colours before light falls on them.
        hair_end: y down to which the hair falls at the sides.
        hair_width: of the whole head of hair, 1 on average.
        hairline: y of the hair's edge in the middle of the forehead.
        parting: x from which the hair falls to both sides.
        wave: amplitude and length of the hair's waves, and how far strands go their own way (0 to
            1).
        eye_open: height of an open eye.
        mouth: half width, curve (corners up by it), gap between the lips, thickness of the lips.
    """

    roll: float
    scale: float
    shift: tuple[float, float]
    yaw: float
    head: tuple[float, float]
    skin: Colour
    hair: Colour
    lips: Colour
    hair_end: float
    hair_width: float
    hairline: float
    parting: float
    wave: tuple[float, float, float]
    eye_open: float
    mouth: tuple[float, float, float, float]

    def turned(self, points: Points, height: float = 0.0) -> Points:
        """Points of the face's surface, `height` above it, as the yaw moves them."""
        x, y = points[:, 0], points[:, 1]
        bulge = 1 - (x / 1.3) ** 2 - ((y - 0.2) / 2.2) ** 2
        depth = np.sqrt(np.maximum(bulge, 0.0)) + height
        moved = points.copy()
        moved[:, 0] = x * math.cos(self.yaw) + depth * math.sin(self.yaw)
        return moved

    def marks(self) -> Points:
        """CelebA's five landmarks in the face's frame: [5, 2]."""
        half, curve, _, _ = self.mouth
        corner = MOUTH - curve / 2
        surface = np.array([(-EYE, 0.0), (EYE, 0.0), (-half, corner), (half, corner)])
        nose = self.turned(np.array([(0.0, NOSE_TIP)]), height=0.35)
        eyes_mouth = self.turned(surface)
        return np.concatenate([eyes_mouth[:2], nose, eyes_mouth[2:]])


def look(rng: np.random.Generator, has: Mapping[str, bool]) -> Look:
    """Choose a face that has these attributes.

    Every number is drawn whether it is needed or not, so two faces from the same generator
    differ only in what their attributes ask for.
    """
    roll, yaw = rng.normal(0.0, (0.06, 0.12))
    scale = float(np.exp(rng.normal(0.0, 0.05)))
    shift = rng.normal(0.0, 0.07, 2)
    head = (rng.uniform(1.08, 1.26), rng.uniform(0.08, 0.36))
    skin = _skin(rng, pale=has["Pale_Skin"])
    return Look(
        roll=float(np.clip(roll, -0.25, 0.25)),
        scale=scale,
        shift=(float(shift[0]), float(shift[1])),
        yaw=float(np.clip(yaw, -0.35, 0.35)),
        head=head,
        skin=_whole(skin.tolist()),
        hair=_hair_colour(rng, has),
        lips=_lips(rng, skin, painted=has["Wearing_Lipstick"]),
        hair_end=rng.uniform(-0.5, 2.8),
        # Waves take room.
        hair_width=rng.uniform(0.9, 1.12) * (1.06 if has["Wavy_Hair"] else 1.0),
        hairline=rng.uniform(-1.35, -0.95),
        parting=rng.uniform(-0.5, 0.5),
        wave=_wave(rng, has),
        eye_open=_eye_open(rng, has),
        mouth=_mouth(rng, has),
    )


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (below 1) or lighter (above 1, towards white)."""
    if factor <= 1:
        return _whole(value * factor for value in colour)
    return _whole(255 - (255 - value) / factor for value in colour)


def vivid(rng: np.random.Generator) -> Colour:
    """A colour for clothes, hats and things: any hue, light or dark, dull or strong."""
    grey, strength = rng.uniform(30, 225), rng.uniform(0, 80)
    return _whole((grey + strength * rng.uniform(-1, 1, 3)).tolist())


def _skin(rng: np.random.Generator, *, pale: bool) -> NDArray[np.float64]:
    place = rng.uniform(0, len(_SKIN) - 1)
    tint = rng.normal(0.0, 5.0, 3)
    below = min(int(place), len(_SKIN) - 2)
    mixed = _SKIN[below] + (_SKIN[below + 1] - _SKIN[below]) * (place - below)
    return np.asarray((_PALE if pale else mixed) + tint)


def _hair_colour(rng: np.random.Generator, has: Mapping[str, bool]) -> Colour:
    other = _OTHER_HAIR[rng.integers(len(_OTHER_HAIR))]
    tint = rng.uniform(0.8, 1.2) + rng.normal(0.0, 0.04, 3)
    named = [colour for name, colour in _HAIR.items() if has[name]]
    return _whole(((np.array(named[0]) if named else other) * tint).tolist())


def _lips(rng: np.random.Generator, skin: NDArray[np.float64], *, painted: bool) -> Colour:
    paint = np.array((rng.uniform(140, 215), rng.uniform(20, 70), rng.uniform(40, 110)))
    bare = skin * (0.84, 0.66, 0.66)
    share = rng.uniform(0.65, 1.0)
    return _whole((bare + (paint - bare) * share if painted else bare).tolist())


def _wave(rng: np.random.Generator, has: Mapping[str, bool]) -> tuple[float, float, float]:
    wavy = (rng.uniform(0.1, 0.2), rng.uniform(0.6, 1.2), 0.3)
    straight = (0.0, 1.0, 0.0)
    between = (rng.uniform(0.0, 0.07), rng.uniform(1.3, 2.2), 1.0)
    return wavy if has["Wavy_Hair"] else straight if has["Straight_Hair"] else between


def _eye_open(rng: np.random.Generator, has: Mapping[str, bool]) -> float:
    wide = rng.uniform(0.26, 0.34)
    narrowed = 0.55 if has["Narrow_Eyes"] else 1.0
    return float(wide * narrowed * (0.68 if has["Smiling"] else 1.0))


def _mouth(rng: np.random.Generator, has: Mapping[str, bool]) -> tuple[float, float, float, float]:
    half, lips = rng.uniform(0.37, 0.47), rng.uniform(0.09, 0.15)
    smile, neutral = rng.uniform(0.17, 0.36), rng.uniform(-0.16, 0.05)
    gap = rng.uniform(0.08, 0.24) * has["Mouth_Slightly_Open"]
    if has["Smiling"]:
        return half * 1.2, smile, gap, lips * 0.9
    return half, neutral, gap, lips


def _whole(colour: Iterable[float]) -> Colour:
    red, green, blue = (min(max(round(value), 0), 255) for value in colour)
    return red, green, blue
