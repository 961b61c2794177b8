"""The canvas that faces are drawn on with Pillow: larger than asked for, then reduced.

Units and frame are those of `face_look`: lengths in d, the distance between the eyes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from vitbench.data.faces.look import Colour, Look, Points

# CelebA's aligned pictures: 178 pixels wide, the eyes 39 apart and, on average, 2 pixels below
# the middle of the picture.
_WIDTH_D = 178 / 39
_BELOW_D = 2 / 39

ACROSS = np.linspace(-1.0, 1.0, 13)  # places from left to right along an arch
_PARABOLA = np.stack([ACROSS, 1 - ACROSS**2], axis=1)
_TURN = np.linspace(0.0, 2 * np.pi, 33)[:-1]
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


class Canvas:
    """A picture under way; takes shapes in the face's frame, or in the camera's."""

    def __init__(self, width: int, height: int, face: Look) -> None:
        self.size = (width, height)
        self._factor = 4 if width <= 48 else 3 if width <= 96 else 2
        self._unit = width / _WIDTH_D
        centre = np.array((width / 2, height / 2 + _BELOW_D * self._unit))
        cos, sin = np.cos(face.roll) * face.scale, np.sin(face.roll) * face.scale
        # From the face's frame and from the camera's to pixels: points @ matrix + offset.
        self._posed = (
            np.array([(cos, sin), (-sin, cos)]) * self._unit,
            np.array(face.shift) * self._unit + centre,
        )
        self._unposed = (np.eye(2) * self._unit, centre)
        self._image = Image.new("RGB", (width * self._factor, height * self._factor))
        self._draw = ImageDraw.Draw(self._image, "RGBA")

    def pixels(self, points: Points, *, posed: bool = True) -> Points:
        """Where points lie in the finished picture."""
        matrix, offset = self._posed if posed else self._unposed
        return np.asarray(points @ matrix + offset)

    def polygon(
        self, points: Points, colour: Colour, alpha: float = 1.0, *, posed: bool = True
    ) -> None:
        """A filled shape; `alpha` below 1 lets what lies behind shine through."""
        self._draw.polygon(self._places(points, posed), (*colour, round(255 * alpha)))

    def line(
        self,
        points: Points,
        width: float,
        colour: Colour,
        alpha: float = 1.0,
        *,
        posed: bool = True,
    ) -> None:
        """A line `width` d wide through the points; never thinner than it can be drawn."""
        across = max(1, round(width * self._unit * self._factor))
        self._draw.line(
            self._places(points, posed), (*colour, round(255 * alpha)), across, joint="curve"
        )

    def fill(self, corners: NDArray[np.float64], direction: float) -> None:
        """Fill the picture from one colour to the other: corners [2, 3], direction in radians."""
        share = self._field(direction, 24)[..., None]
        colours = corners[0] + (corners[1] - corners[0]) * share
        small = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
        self._image.paste(small.resize(self._image.size, Image.Resampling.BILINEAR))

    def finish(self, rng: np.random.Generator, *, blurry: bool) -> NDArray[np.uint8]:
        """Blur, reduce, light and grain: uint8 [3, Y, X]."""
        radius = rng.uniform(0.08, 0.14) * self._unit * self._factor
        image = self._image.filter(ImageFilter.GaussianBlur(radius)) if blurry else self._image
        values = np.asarray(image.reduce(self._factor), dtype=np.float32)
        strength, side = rng.uniform(0.0, 0.5), rng.uniform(0, 2 * np.pi)
        brightness, cast = rng.uniform(0.75, 1.12), rng.normal(1.0, 0.03, 3)
        grain = rng.uniform(0.0, 9.0)
        light = brightness * (1 + strength * (self._field(side, None)[..., None] - 0.5)) * cast
        values = values * light.astype(np.float32)
        values += grain * rng.standard_normal(values.shape, dtype=np.float32)
        whole = np.clip(np.round(values), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(whole.transpose(2, 0, 1))

    def _field(self, direction: float, cells: int | None) -> NDArray[np.float64]:
        """0 to 1 across the picture's middle square, on a grid of cells or of pixels."""
        width, height = self.size
        columns, rows = (cells, cells) if cells else self.size
        x = ((np.arange(columns) + 0.5) / columns - 0.5) * 2
        y = ((np.arange(rows) + 0.5) / rows - 0.5) * 2 * height / width
        across = x[None, :] * np.cos(direction) + y[:, None] * np.sin(direction)
        return np.asarray(np.clip(0.5 + across / 2, -0.2, 1.2))

    def _places(self, points: Points, posed: bool) -> list[float]:
        places = self.pixels(points, posed=posed)
        places *= self._factor
        places -= 0.5  # Pillow names pixels by their centres
        flat: list[float] = places.ravel().tolist()
        return flat


def oval(x: float, y: float, across: float, down: float, power: float = 2.0) -> Points:
    """An ellipse's outline by its half axes; a higher power makes it a rounded rectangle."""
    circle = _CIRCLE
    if power != 2.0:
        circle = np.sign(circle) * np.abs(circle) ** (2 / power)
    return circle * (across, down) + (x, y)


def arch(half: float, y: float, rise: float, x: float = 0.0) -> Points:
    """A parabola from left to right, `rise` higher in the middle than at its ends."""
    return _PARABOLA * (half, -rise) + (x, y)


def between(above: Points, below: Points) -> Points:
    """The outline of what lies between two lines that run the same way."""
    return np.concatenate([above, below[::-1]])
