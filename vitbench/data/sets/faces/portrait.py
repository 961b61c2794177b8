"""One drawn face, part by part, from the background to what is held before it.

Lengths are in d, the distance between the eyes. The face's frame has its origin midway between the
eyes, x to the right of the picture and y down. The proportions are those of CelebA's aligned
pictures: 178 pixels wide, the eyes 39 apart and, on average, 2 pixels below the middle.

Every random number is drawn whether it is needed or not, so
two faces from equal generators differ only in the parts that their attributes ask for: the colour
of hair, skin or lips (Blond_Hair, Pale_Skin, Wearing_Lipstick), the strands and outline of the hair
(Wavy_Hair), eyes and mouth (Smiling), the gap between the lips (Mouth_Slightly_Open), and what is
put on (Eyeglasses, Wearing_Hat).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.float64]
_Colour = Sequence[int] | NDArray[np.float64] | NDArray[np.int64]  # red, green, blue: 0 to 255

_ACROSS = np.linspace(-1.0, 1.0, 11)  # places from left to right along an arch
_TURN = np.linspace(0.0, 2 * np.pi, 25)[:-1]
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)
_EYE, _MOUTH = 0.5, 1.05  # x of the eyes, y of the mouth

_SKIN = np.array([(88, 56, 40), (150, 104, 76), (205, 155, 122), (238, 200, 172)])
_PALE, _BLOND = np.array((250, 231, 222)), np.array((218, 182, 112))
_HAIR = np.array([(24, 20, 22), (96, 60, 36), (172, 172, 176), (140, 58, 30), (120, 34, 60)])
_IRIS = np.array([(70, 44, 26), (40, 30, 24), (66, 96, 130), (80, 100, 66)])
_FRAME = np.array([(18, 16, 18), (18, 16, 18), (70, 44, 28), (150, 146, 140), (120, 26, 34)])

# The matrix that draws 24 points of a smooth curve through 5 knots.
_CURVE = np.vander(np.linspace(0, 1, 24), 5) @ np.linalg.inv(np.vander(np.linspace(0, 1, 5), 5))
_STRANDS = 8  # on each side of the parting


class Portrait:
    """A face under way: the choices that several parts share, and a method for each part.

    Shapes are points [P, 2] in the face's frame. They are drawn larger than asked for; `draw` then
    reduces the picture, lights it and makes it grainy.

    Args:
        rng: equal generators give the same face at every size.
        has: whether it has each attribute above.
        size: width and height in pixels; the face's size follows the width.
    """

    def __init__(
        self, rng: np.random.Generator, has: Mapping[str, bool], size: tuple[int, int]
    ) -> None:
        self.rng, self.has = rng, has
        roll, self.yaw = np.clip(rng.normal(0.0, (0.06, 0.12)), -0.3, 0.3)  # in radians
        scale, shift = np.exp(rng.normal(0, 0.05)), rng.normal(0, 0.07, 2)  # shift in d
        width, height = size
        self.factor, self.unit = 3 if width <= 96 else 2, width * 39 / 178
        cos, sin = np.cos(roll) * scale, np.sin(roll) * scale
        self.matrix = np.array([(cos, sin), (-sin, cos)]) * self.unit
        self.offset = np.add(shift, (0, 2 / 39)) * self.unit + (width / 2, height / 2)
        self.image = Image.new("RGB", (width * self.factor, height * self.factor))
        self.canvas = ImageDraw.Draw(self.image, "RGBA")
        self.half, self.jaw = rng.uniform((1.08, 0.08), (1.26, 0.36))  # of the head: width, point
        tone, tint = rng.uniform(0, len(_SKIN) - 1), rng.normal(0.0, 5.0, 3)
        skin = [np.interp(tone, range(len(_SKIN)), channel) for channel in _SKIN.T]
        self.skin = (_PALE if has["Pale_Skin"] else np.array(skin)) + tint
        hair, tint = rng.choice(_HAIR), rng.uniform(0.8, 1.2) + rng.normal(0.0, 0.04, 3)
        self.hair, self.brow = (_BLOND if has["Blond_Hair"] else hair) * tint, hair * 0.7
        glad, sober, self.mouth = rng.uniform((0.17, -0.16, 0.37), (0.36, 0.05, 0.47))
        self.smile = glad if has["Smiling"] else sober  # height of the mouth's curve
        self.mouth *= 1.2 if has["Smiling"] else 1.0  # half its width

    def draw(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The picture, uint8 [3, Y, X], and the landmarks, float32 [5, 2], as in `faces.Faces`."""
        strands = self._strands()
        self._background()
        self._polygon(_between(strands[0][-2], strands[1][-2]), self.hair * 0.55)
        self._body()
        self._head()
        self._eyes()
        self._nose()
        self._mouth()
        for side, tones in zip(strands, self.rng.uniform(0.7, 1.25, (2, _STRANDS)), strict=True):
            for inner, outer, tone in zip(side[:-1], side[1:], tones, strict=True):
                self._polygon(_between(inner, outer), self.hair * tone)
        self._hat()
        self._glasses()
        self._thing_in_front()
        corner = _MOUTH - self.smile / 2
        flat = np.array([(-_EYE, 0), (_EYE, 0), (-self.mouth, corner), (self.mouth, corner)])
        marks = np.insert(self._turned(flat), 2, self._nose_tip(), axis=0)
        return self._finish(), self._pixels(marks).astype(np.float32)

    def _pixels(self, points: Array) -> Array:
        """Where points lie in the finished picture; its first pixel reaches from 0 to 1."""
        return np.asarray(points @ self.matrix + self.offset)

    def _polygon(self, points: Array, colour: _Colour, alpha: float = 1.0) -> None:
        """A filled shape; `alpha` below 1 lets what lies behind shine through."""
        self.canvas.polygon(*self._pillows(points, colour, alpha))

    def _line(self, points: Array, width: float, colour: _Colour, alpha: float = 1.0) -> None:
        """A line `width` d wide through the points; never thinner than it can be drawn."""
        across = max(1, round(width * self.unit * self.factor))
        self.canvas.line(*self._pillows(points, colour, alpha), across)

    def _finish(self) -> NDArray[np.uint8]:
        """Reduce the picture and add light from one side and grain: uint8 [3, Y, X]."""
        values = np.asarray(self.image.reduce(self.factor), dtype=np.float32)
        height, width, _ = values.shape
        brightness, strength, grain = self.rng.uniform((0.75, 0.0, 0.0), (1.12, 0.5, 9.0))
        side, cast = self.rng.uniform(0, 2 * np.pi), self.rng.normal(1.0, 0.03, 3)
        x, y = np.arange(width) - width / 2, np.arange(height)[:, None] - height / 2
        along = (x * np.cos(side) + y * np.sin(side)) / width
        values = values * (brightness * (1 + strength * along[..., None]) * cast)
        values += grain * self.rng.standard_normal(values.shape, dtype=np.float32)
        whole = np.clip(np.round(values), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(whole.transpose(2, 0, 1))

    def _pillows(
        self, points: Array, colour: _Colour, alpha: float
    ) -> tuple[list[float], tuple[int, ...]]:
        """Places and colour as Pillow takes them; it names pixels by their centres."""
        places = (self._pixels(points) * self.factor - 0.5).ravel().tolist()
        return places, tuple(np.clip((*colour, 255 * alpha), 0, 255).astype(int).tolist())

    def _turned(self, points: Array, height: float = 0.0) -> Array:
        """Points of the face's surface, `height` above it, as the head's turn moves them."""
        x, y = points.T
        depth = np.maximum(1 - x**2 / 2 - (y - 0.2) ** 2 / 6, 0) + height
        return np.stack([x + self.yaw * depth, y], axis=1)

    def _nose_tip(self) -> Array:
        return self._turned(np.array([(0.0, 0.64)]), height=0.35).ravel()

    def _vivid(self) -> Array:
        """A colour for clothes, hats and things: any hue, light or dark, dull or strong."""
        grey, strength = self.rng.uniform((30, 0), (225, 80))
        return np.asarray(grey + strength * self.rng.uniform(-1, 1, 3))

    def _background(self) -> None:
        self._polygon(_oval(0, 0, 5, 5), self._vivid())
        for x, y, size, alpha in self.rng.uniform((-2.5, -2.5, 0.2, 0), (2.5, 2.5, 1, 1), (4, 4)):
            self._polygon(_oval(x, y, size, size), self._vivid(), alpha)

    def _body(self) -> None:
        """Shoulders in clothes of some colour, and the neck."""
        width, slope, depth = self.rng.uniform((0.5, 0.0, 2.4), (0.68, 0.35, 2.9))
        right = np.array([(width, 2.15), (2.6, 2.3 + slope), (3.2, 5.5)])
        self._polygon(_between(right, right * (-1, 1)), self._vivid())
        neck = [(-width, 1.0), (width, 1.0), (width, 2.3), (0, depth), (-width, 2.3)]
        self._polygon(np.array(neck), self.skin * 0.82)

    def _head(self) -> None:
        """Ears, the head's outline, and the shade on its far side."""
        far, (darkness, border) = self.rng.choice((-1, 1)), self.rng.uniform((0, 0.1), (0.35, 0.8))
        for side in (-1, 1):
            self._polygon(_oval(side * self.half, 0.2, 0.16, 0.32), self.skin * 0.88)
        outline = _oval(0.0, 0.15, self.half, 1.95)
        outline[:, 0] *= 1 - self.jaw * np.clip(outline[:, 1] / 2.1, 0.0, None) ** 2
        self._polygon(outline, self.skin)
        edge = outline[outline[:, 0] * far >= -1e-9]
        edge = edge[np.argsort(edge[:, 1])]
        self._polygon(_between(edge, edge * (border, 1)), (40, 20, 20), darkness)

    def _eyes(self) -> None:
        """Shadows, whites, irises, lids and brows; a smile narrows the eyes from below."""
        rng, smiling = self.rng, self.has["Smiling"]
        iris, aside = rng.choice(_IRIS), rng.normal(0.0, 0.035)
        wide, lid, shadow, tall = rng.uniform((0.23, 0.04, 0.0, 0.26), (0.28, 0.1, 0.35, 0.34))
        thick, rise, brow = rng.uniform((0.05, 0.0, -0.5), (0.16, 0.12, -0.38))
        lower = tall * (0.2 if smiling else 0.5)
        upper, ball = tall * (0.48 if smiling else 0.5), min(0.15, 0.31 * tall + 0.62 * lower)
        for x in (-_EYE, _EYE):
            # Shadow, or paint, around the eye: dark rims that are not glasses.
            self._polygon(self._turned(_oval(x, -0.06, 0.36, 0.26)), self.skin * 0.5, shadow)
            above, below = (self._turned(_arch(wide, 0, up, x)) for up in (upper, -lower))
            self._polygon(_between(above, below), (226, 222, 218))
            middle = (lower - upper) / 2
            for size, colour in ((1.0, iris), (0.5, (12, 10, 10))):
                disc = _oval(x + aside, middle, 0.14 * size, ball * size)
                self._polygon(self._turned(disc), colour)
            self._line(above, lid, (30, 22, 20))
            if smiling:
                self._line(np.add(below, (0, 0.03)), 0.06, self.skin * 0.5, 0.7)
            self._line(self._turned(_arch(0.33, brow, rise, x)), thick, self.brow, 0.9)

    def _nose(self) -> None:
        wide, bridge = self.rng.uniform((0.16, 0.2), (0.27, 0.6))
        (x, y), side = self._nose_tip(), 1 if self.yaw < 0 else -1  # the side in the shade
        ridge = np.array([(x / 2 + side * 0.1, 0.05), (x + side * wide, y + 0.04)])
        self._line(ridge, 0.06, self.skin * 0.62, bridge)
        self._line(_arch(wide, y + 0.12, -0.05, x), 0.08, self.skin * 0.5, 0.75)

    def _mouth(self) -> None:
        """Lips along a curve, teeth and dark between them, the folds beside a smile."""
        gap, thick, fold, teeth = self.rng.uniform((0.1, 0.1, 0.2, 0.15), (0.24, 0.2, 0.6, 0.8))
        paint, strength = self.rng.uniform((140, 20, 40), (215, 70, 110)), self.rng.uniform(0.65, 1)
        folded = self.has["Smiling"] | (self.rng.random() < 0.25)
        lips = self.skin * (0.84, 0.66, 0.66)
        lips += (paint - lips) * strength * self.has["Wearing_Lipstick"]
        gap *= self.has["Mouth_Slightly_Open"]
        corner = _MOUTH - self.smile / 2  # between the corners the lips hang lower, or higher
        upper = _arch(self.mouth, corner, -self.smile + gap * 0.35)
        lower = _arch(self.mouth, corner, -self.smile - gap * 0.65)
        full = np.stack([0 * _ACROSS, thick * (1 - _ACROSS**2) ** 0.7], axis=1)
        self._polygon(self._turned(_between(upper - full, lower + full)), lips)
        if gap:
            shown = upper + (lower - upper) * teeth
            self._polygon(self._turned(_between(upper, lower)), (52, 16, 18))
            self._polygon(self._turned(_between(upper, shown)), (236, 232, 224))
        self._line(self._turned(upper), 0.05, lips * 0.45)
        if folded:
            for side in (-1, 1):
                bend, end = self.mouth + 0.1, (side * (self.mouth + 0.16), corner + 0.02)
                line = np.array([(side * 0.34, 0.66), (side * bend, 0.8), end])
                self._line(self._turned(line), 0.05, self.skin * 0.6, fold)

    def _strands(self) -> Array:
        """Borders of the strands of hair, from the face to the outline, from the parting down.

        [2 sides, strands + 1, points, 2] in d; waves grow from the roots on.
        """
        rng, half = self.rng, self.half
        end, parting, line = rng.uniform((-0.5, -0.5, -1.35), (2.8, 0.5, -0.95))
        reach, phase = half * rng.uniform(0.9, 1.12), rng.uniform(0, 2 * np.pi, (2, 1, 1))
        wavy, plain = rng.uniform(((0.1, 0.75), (-0.04, 1.3)), ((0.2, 1.2), (0.07, 2.2)))
        amplitude, length = wavy if self.has["Wavy_Hair"] else np.maximum(plain, 0)
        tucked, middle = half * (0.8 if end > 1.2 else 0.98), (end - 0.9) / 2
        face = [(0.0, line), (0.72, line + 0.12), (half - 0.08, -0.5), (half, middle)]
        face += [(tucked, end)]
        outline = [(0.0, -2.08), (reach * 0.8, -1.85), (reach + 0.22, -0.9)]
        outline += [(reach + 0.36, middle), (reach + 0.34, end)]
        place = np.linspace(0.0, 1.0, _STRANDS + 1)[:, None, None]
        right = _CURVE @ (np.array(face) * (1 - place) + np.array(outline) * place)
        paths = np.stack([right * (-1, 1), right])
        paths[..., 0] += parting * np.linspace(1, 0, len(_CURVE)) ** 2
        steps = np.gradient(paths, axis=2)
        lengths = np.linalg.norm(steps, axis=3)
        run = lengths.cumsum(axis=2)
        swing = amplitude * np.clip(run / 1.2, 0.25, 1) * np.sin(2 * np.pi * run / length + phase)
        return np.asarray(paths + steps[..., ::-1] * (-1, 1) * (swing / lengths)[..., None])

    def _hat(self) -> None:
        """A cap with a peak, or a hat with a brim."""
        colour, band, wide = self._vivid(), self._vivid(), self.rng.random() < 0.5
        edge, half = self.rng.uniform(-1.15, -0.9), self.half + 0.2
        if self.has["Wearing_Hat"]:
            dome = _oval(0.0, edge, half, 1.2, 2.5)
            self._polygon(np.minimum(dome, (9, edge + 0.1)), colour)
            reach, upper, lower = (1.4, 0.3, 0.05) if wide else (1.05, 0.15, -0.15)
            above, below = (_arch(half * reach, edge + 0.1, rise) for rise in (upper, lower))
            self._polygon(_between(above, below), band)

    def _glasses(self) -> None:
        """Two lenses, clear, tinted or dark, in a frame that may be thin."""
        rng = self.rng
        wide, tall, power, width = rng.uniform((0.36, 0.24, 2.0, 0.045), (0.45, 0.4, 4.0, 0.14))
        frame, kind = rng.choice(_FRAME), rng.choice(3, p=(0.25, 0.15, 0.6))
        if not self.has["Eyeglasses"]:
            return
        tint, alpha = ((22, 0.9), (70, 0.4), (240, 0.12))[kind]
        for side in (-1, 1):
            lens = self._turned(_oval(side * (_EYE + 0.02), 0.05, wide, tall, power), height=0.1)
            self._polygon(lens, (tint, tint, tint), alpha)
            self._line(np.concatenate([lens, lens[:2]]), width, frame)
            arm = np.array([(side * (_EYE + wide), -0.06), (side * self.half, -0.08)])
            self._line(self._turned(arm), width, frame)
        bridge = _arch(_EYE - wide + 0.04, 0.0, 0.06)
        self._line(self._turned(bridge, height=0.1), width, frame)

    def _thing_in_front(self) -> None:
        """Now and then something before the cheek or the chin."""
        x, y, size, there = self.rng.uniform((-1.0, 1.2, 0.25, 0), (1.0, 2.0, 0.5, 1))
        colour = self._vivid()
        if there < 0.1:
            self._polygon(_oval(x, y, size, size * 1.4, 3.0), colour)


def _oval(x: float, y: float, across: float, down: float, power: float = 2.0) -> Array:
    """An ellipse's outline by its half axes; a higher power makes it a rounded rectangle."""
    circle = _CIRCLE if power == 2 else np.sign(_CIRCLE) * np.abs(_CIRCLE) ** (2 / power)
    return np.asarray(circle * (across, down) + (x, y))


def _arch(half: float, y: float, rise: float, x: float = 0.0) -> Array:
    """A parabola from left to right, `rise` higher in the middle than at its ends."""
    return np.stack([x + half * _ACROSS, y - rise * (1 - _ACROSS**2)], axis=1)


def _between(above: Array, below: Array) -> Array:
    """The outline of what lies between two lines that run the same way."""
    return np.concatenate([above, below[::-1]])
