"""A Pillow canvas for one face: drawn larger than asked for, then reduced, lit and made grainy.

Lengths are in d, the distance between the eyes. The face's frame has its origin midway between the
eyes, x to the right of the picture and y down. The proportions are those of CelebA's aligned
pictures: 178 pixels wide, the eyes 39 apart and, on average, 2 pixels below the middle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.float64]
_Colour = Sequence[int] | NDArray[np.float64] | NDArray[np.int64]  # red, green, blue: 0 to 255

ACROSS = np.linspace(-1.0, 1.0, 11)  # places from left to right along an arch
_TURN = np.linspace(0.0, 2 * np.pi, 25)[:-1]
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


class Canvas:
    """A picture under way; takes shapes as points [P, 2] in the face's frame, in d.

    Args:
        size: width and height in pixels; the face's size follows the width.
        roll, scale, shift: the face's turn in radians, its size (1 on average), its place in d.
    """

    def __init__(self, size: tuple[int, int], roll: float, scale: float, shift: Array) -> None:
        width, height = size
        self._factor = 3 if width <= 96 else 2
        self._unit = width * 39 / 178
        cos, sin = np.cos(roll) * scale, np.sin(roll) * scale
        self._matrix = np.array([(cos, sin), (-sin, cos)]) * self._unit
        self._offset = np.add(shift, (0, 2 / 39)) * self._unit + (width / 2, height / 2)
        self._image = Image.new("RGB", (width * self._factor, height * self._factor))
        self._draw = ImageDraw.Draw(self._image, "RGBA")

    def pixels(self, points: Array) -> Array:
        """Where points lie in the finished picture; its first pixel reaches from 0 to 1."""
        return np.asarray(points @ self._matrix + self._offset)

    def polygon(self, points: Array, colour: _Colour, alpha: float = 1.0) -> None:
        """A filled shape; `alpha` below 1 lets what lies behind shine through."""
        self._draw.polygon(self._places(points), _ink(colour, alpha))

    def line(self, points: Array, width: float, colour: _Colour, alpha: float = 1.0) -> None:
        """A line `width` d wide through the points; never thinner than it can be drawn."""
        across = max(1, round(width * self._unit * self._factor))
        self._draw.line(self._places(points), _ink(colour, alpha), across)

    def finish(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Reduce the picture and add light from one side and grain: uint8 [3, Y, X]."""
        values = np.asarray(self._image.reduce(self._factor), dtype=np.float32)
        height, width, _ = values.shape
        brightness, strength, grain = rng.uniform((0.75, 0.0, 0.0), (1.12, 0.5, 9.0))
        side, cast = rng.uniform(0, 2 * np.pi), rng.normal(1.0, 0.03, 3)
        x, y = np.arange(width) - width / 2, np.arange(height)[:, None] - height / 2
        along = (x * np.cos(side) + y * np.sin(side)) / width
        values = values * (brightness * (1 + strength * along[..., None]) * cast)
        values += grain * rng.standard_normal(values.shape, dtype=np.float32)
        whole = np.clip(np.round(values), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(whole.transpose(2, 0, 1))

    def _places(self, points: Array) -> list[float]:
        places: list[float] = (self.pixels(points) * self._factor - 0.5).ravel().tolist()
        return places  # of Pillow, which names pixels by their centres


def oval(x: float, y: float, across: float, down: float, power: float = 2.0) -> Array:
    """An ellipse's outline by its half axes; a higher power makes it a rounded rectangle."""
    circle = _CIRCLE if power == 2 else np.sign(_CIRCLE) * np.abs(_CIRCLE) ** (2 / power)
    return np.asarray(circle * (across, down) + (x, y))


def arch(half: float, y: float, rise: float, x: float = 0.0) -> Array:
    """A parabola from left to right, `rise` higher in the middle than at its ends."""
    return np.stack([x + half * ACROSS, y - rise * (1 - ACROSS**2)], axis=1)


def between(above: Array, below: Array) -> Array:
    """The outline of what lies between two lines that run the same way."""
    return np.concatenate([above, below[::-1]])


def _ink(colour: _Colour, alpha: float) -> tuple[int, ...]:
    return tuple(np.clip((*colour, 255 * alpha), 0, 255).astype(int).tolist())
