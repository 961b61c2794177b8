"""Drawing of one face, part by part, from the background to what is held before it.

Units and frame are those of `face_look`: lengths in d, the distance between the eyes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from vitbench.data.faces.canvas import ACROSS, Canvas, arch, between, oval
from vitbench.data.faces.hair import bangs, fall, hair_behind
from vitbench.data.faces.look import EYE, MOUTH, Look, Points, look, shade, vivid

_PARTS = 14  # independent random streams of one picture


def draw_face(
    rng: np.random.Generator, has: Mapping[str, bool], width: int, height: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """One picture and its landmarks.

    Args:
        rng: where every choice comes from; the same generator gives the same face at any size.
        has: each drawn attribute, present or not.
        width, height: of the picture, in pixels; the face's size follows the width.

    Returns:
        uint8 [3, height, width], and float32 [5, 2]: CelebA's landmarks as (x, y) in pixels, the
        first pixel reaching from 0 to 1.
    """
    streams = iter(rng.spawn(_PARTS))
    face = look(next(streams), has)
    canvas = Canvas(width, height, face)
    _background(canvas, next(streams))
    hair_behind(canvas, face)
    _body(canvas, face, next(streams))
    _head(canvas, face, has, next(streams))
    _eyes(canvas, face, has, next(streams))
    _brows(canvas, face, has, next(streams))
    _beard(canvas, face, has, next(streams))
    _nose(canvas, face, next(streams))
    _mouth(canvas, face, has, next(streams))
    hair = next(streams)
    fall(canvas, face, hair)
    if has["Bangs"]:
        bangs(canvas, face, hair)
    accessories = next(streams)
    if has["Wearing_Hat"]:
        _hat(canvas, face, accessories)
    glasses = next(streams)
    if has["Eyeglasses"]:
        _glasses(canvas, face, glasses)
    _something_in_front(canvas, face, next(streams))
    image = canvas.finish(next(streams), blurry=has["Blurry"])
    return image, canvas.pixels(face.marks()).astype(np.float32)


def _background(canvas: Canvas, rng: np.random.Generator) -> None:
    """A gradient, in front of it nothing, stripes or blobs."""
    corners = np.array([vivid(rng), vivid(rng)], dtype=float)
    canvas.fill(corners, rng.uniform(0, 2 * np.pi))
    kind = rng.uniform()
    if kind < 0.25:
        turn, colour, alpha = rng.uniform(0, np.pi), vivid(rng), rng.uniform(0.3, 0.9)
        along = np.array((np.cos(turn), np.sin(turn)))
        across = np.array((-along[1], along[0]))
        step = rng.uniform(0.4, 1.4)
        for place in np.arange(-4.0, 4.0, step):
            stripe = np.array([place * across - 5 * along, place * across + 5 * along])
            canvas.line(stripe, step * 0.45, colour, alpha, posed=False)
    elif kind < 0.6:
        for x, y, across, down in rng.uniform((-2.6, -2.8, 0.2, 0.2), (2.6, 2.8, 1.0, 1.0), (6, 4)):
            canvas.polygon(oval(x, y, across, down), vivid(rng), rng.uniform(0.4, 1), posed=False)


def _body(canvas: Canvas, face: Look, rng: np.random.Generator) -> None:
    """Shoulders in clothes, a neck in the shade of the chin."""
    cloth, width = vivid(rng), rng.uniform(0.6, 0.8)
    slope, neckline = rng.uniform(0.2, 0.8), rng.uniform(2.3, 2.9)
    right = np.array([(width, 2.15), (2.6, 2.3 + slope), (3.2, 5.5)])
    canvas.polygon(between(right, right * (-1, 1)), cloth)
    skin = shade(face.skin, 0.82)
    canvas.polygon(
        np.array([(-width, 1.0), (width, 1.0), (width, 2.3), (0, neckline), (-width, 2.3)]), skin
    )


def _head(canvas: Canvas, face: Look, has: Mapping[str, bool], rng: np.random.Generator) -> None:
    """Ears, the head's outline, the shade of its far side, cheeks."""
    half, jaw = face.head
    earring = vivid(rng) if rng.uniform() < 0.4 else (226, 190, 90)
    size = rng.uniform(0.1, 0.18)
    for side in (-1, 1):
        canvas.polygon(oval(side * half, 0.2, 0.16, 0.32), shade(face.skin, 0.88))
        if has["Wearing_Earrings"]:
            canvas.polygon(oval(side * (half + 0.06), 0.62 + size, size, size * 1.4), earring)
    outline = oval(0.0, 0.15, half, 1.95)
    outline[:, 0] *= 1 - jaw * np.clip(outline[:, 1] / 2.1, 0.0, None) ** 2
    canvas.polygon(outline, face.skin)
    far = 1 if rng.uniform() < 0.5 else -1  # the side in the shade
    darkness, border = rng.uniform(0.0, 0.2), rng.uniform(0.1, 0.6)
    edge = outline[outline[:, 0] * far >= -1e-9]
    edge = edge[np.argsort(edge[:, 1])]
    for step in (0.0, 0.15, 0.3):
        canvas.polygon(between(edge, edge * (border + step, 1)), (40, 20, 20), darkness)
    if has["Rosy_Cheeks"]:
        for x in (-0.68, 0.68):
            cheek = face.turned(oval(x, 0.68, 0.34, 0.26))
            canvas.polygon(cheek, (226, 84, 96), 0.4)


def _eyes(canvas: Canvas, face: Look, has: Mapping[str, bool], rng: np.random.Generator) -> None:
    """Whites, irises, lids; a smile lifts the lower lid and draws lines at the outer corners."""
    iris = ((70, 44, 26), (40, 30, 24), (66, 96, 130), (80, 100, 66))[rng.integers(4)]
    wide, lid = rng.uniform(0.23, 0.28), rng.uniform(0.04, 0.1)
    rim, look_aside = rng.uniform(0.0, 0.75), rng.normal(0.0, 0.035)
    crow = rng.uniform(0.25, 0.5)
    tall = face.eye_open
    dark = shade(face.skin, 0.5)
    lower = tall * (0.3 if has["Smiling"] else 0.5)
    for side in (-1, 1):
        x = side * EYE
        # Shadow, or paint, around the eye: dark rims that are not glasses.
        canvas.polygon(face.turned(oval(x, -0.06, 0.36, 0.26)), dark, 0.45 * rim)
        if has["Bags_Under_Eyes"]:
            bag = between(arch(0.3, 0.17, -0.05, x), arch(0.3, 0.17, -0.22, x))
            canvas.polygon(face.turned(bag), shade(face.skin, 0.55), 0.6)
        above, below = arch(wide, 0.0, tall - lower, x), arch(wide, 0.0, -lower, x)
        white = face.turned(between(above, below))
        canvas.polygon(white, (226, 222, 218))
        reach = min(0.15, 0.62 * tall)
        middle = (lower - (tall - lower)) / 2
        canvas.polygon(face.turned(oval(x + look_aside, middle, 0.14, reach)), iris)
        canvas.polygon(face.turned(oval(x + look_aside, middle, 0.06, reach * 0.5)), (12, 10, 10))
        canvas.line(face.turned(above), lid, (30, 22, 20))
        if has["Smiling"]:
            canvas.line(face.turned(np.add(below, (0, 0.03))), 0.06, dark, 0.7)
            for dy in (-0.1, 0.02, 0.14):
                fold = np.array([(x + side * 0.3, dy * 0.5), (x + side * 0.52, dy)])
                canvas.line(face.turned(fold), 0.035, dark, crow)


def _brows(canvas: Canvas, face: Look, has: Mapping[str, bool], rng: np.random.Generator) -> None:
    thick = rng.uniform(0.16, 0.22) if has["Bushy_Eyebrows"] else rng.uniform(0.05, 0.11)
    rise, tilt, y = rng.uniform(0.0, 0.06), rng.normal(0.0, 0.06), rng.uniform(-0.5, -0.38)
    rise += 0.13 * has["Arched_Eyebrows"]
    colour = shade(face.hair, rng.uniform(0.5, 0.8))
    for side in (-1, 1):
        line = arch(0.33, y, rise, side * EYE)
        line[:, 1] += tilt * side * (line[:, 0] - side * EYE)
        canvas.line(face.turned(line), thick, colour, 0.9)


def _nose(canvas: Canvas, face: Look, rng: np.random.Generator) -> None:
    wide, dark = rng.uniform(0.16, 0.27), shade(face.skin, 0.62)
    (tip,) = face.turned(np.array([(0.0, 0.64)]), height=0.35)
    side = 1 if face.yaw < 0 else -1  # the side in the shade
    bridge = face.turned(np.array([(side * 0.1, 0.05)]), height=0.2)
    wing = np.array([(tip[0] + side * wide, tip[1] + 0.04)])
    canvas.line(np.concatenate([bridge, wing]), 0.06, dark, rng.uniform(0.2, 0.6))
    canvas.line(arch(wide, tip[1] + 0.12, -0.05, tip[0]), 0.06, dark, 0.75)
    for nostril in (-0.55, 0.55):
        canvas.polygon(oval(tip[0] + nostril * wide, tip[1] + 0.1, 0.055, 0.04), (46, 24, 22), 0.8)
    canvas.polygon(oval(tip[0], tip[1] - 0.05, 0.08, 0.08), shade(face.skin, 1.4), 0.5)


def _beard(canvas: Canvas, face: Look, has: Mapping[str, bool], rng: np.random.Generator) -> None:
    """A moustache, a goatee, or a beard along the jaw."""
    colour, alpha = shade(face.hair, 0.75), rng.uniform(0.55, 0.95)
    wide, deep = rng.uniform(0.4, 0.55), rng.uniform(0.14, 0.2)
    half, jaw = face.head
    if has["No_Beard"]:
        return
    if not has["Goatee"]:
        above, below = arch(wide, 0.99, 0.16), arch(wide, 1.02, 0.16 - deep)
        canvas.polygon(face.turned(between(above, below)), colour, alpha)
    if not has["Mustache"]:
        reach = wide * 0.85 if has["Goatee"] else half * (1 - 0.4 * jaw)
        top = 1.3 if has["Goatee"] else 0.7
        above, below = arch(reach, top, (top - 1.42)), arch(reach, top, top - 2.08)
        canvas.polygon(face.turned(between(above, below)), colour, alpha)


def _mouth(canvas: Canvas, face: Look, has: Mapping[str, bool], rng: np.random.Generator) -> None:
    """Lips along a curve, teeth or dark between them, the folds beside a smile."""
    half, curve, gap, thick = face.mouth
    thick *= 1.5 if has["Big_Lips"] else 1.0
    fold, teeth = rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.9)
    lined = has["Smiling"] or rng.uniform() < 0.25
    middle = MOUTH - curve / 2  # of the corners; the parabola falls by `curve` between them
    upper = arch(half, middle, -curve + gap * 0.35)
    lower = arch(half, middle, -curve - gap * 0.65)
    cupid = 0.35 * thick * np.exp(-((ACROSS / 0.16) ** 2))
    top = upper - np.stack([0 * ACROSS, thick * (1 - ACROSS**2) ** 0.7 - cupid], axis=1)
    bottom = lower + np.stack([0 * ACROSS, 1.25 * thick * (1 - ACROSS**2) ** 0.7], axis=1)
    canvas.polygon(face.turned(between(top, bottom)), face.lips)
    if gap:
        inside = face.turned(between(upper, lower))
        canvas.polygon(inside, (52, 16, 18))
        shown = upper + (lower - upper) * (teeth if has["Smiling"] else 0.4 * teeth)
        canvas.polygon(face.turned(between(upper, shown)), (236, 232, 224))
    canvas.line(face.turned(upper), 0.05, shade(face.lips, 0.45))
    if lined:
        for side in (-1, 1):
            start, end = (side * 0.34, 0.66), (side * (half + 0.16), middle + 0.02)
            bend = (side * (half + 0.1), 0.8)
            canvas.line(
                face.turned(np.array([start, bend, end])), 0.05, shade(face.skin, 0.6), fold
            )


def _hat(canvas: Canvas, face: Look, rng: np.random.Generator) -> None:
    """A cap, a woollen hat or one with a brim."""
    colour, band = vivid(rng), vivid(rng)
    kind, edge = rng.integers(3), rng.uniform(-1.1, -0.8)
    half = face.head[0] * face.hair_width + 0.3
    dome = between(arch(half, edge, 1.75), arch(half, edge, 0.12))
    canvas.polygon(dome, colour)
    if kind == 0:
        canvas.line(arch(half, edge - 0.1, 0.12), 0.28, band)
    elif kind == 1:
        canvas.polygon(between(arch(half * 0.9, edge, 0.2), arch(half * 0.9, edge, -0.3)), band)
    else:
        brim = between(arch(half * 1.55, edge + 0.12, 0.35), arch(half * 1.55, edge + 0.12, 0.0))
        canvas.polygon(brim, shade(colour, 0.85))


def _glasses(canvas: Canvas, face: Look, rng: np.random.Generator) -> None:
    """Two lenses, clear, tinted or dark, in a frame that may be thin."""
    wide, tall = rng.uniform(0.36, 0.45), rng.uniform(0.24, 0.4)
    power, width = rng.uniform(2.0, 4.0), rng.uniform(0.045, 0.14)
    frame = ((18, 16, 18), (70, 44, 28), (150, 146, 140), (120, 26, 34))[
        rng.choice(4, p=(0.5, 0.2, 0.15, 0.15))
    ]
    kind, glare = rng.uniform(), rng.uniform(0.2, 0.9)
    tint, alpha = ((22, 22, 26), 0.9) if kind < 0.25 else ((70, 60, 50), 0.4)
    if kind > 0.4:
        tint, alpha = (235, 240, 245), 0.12
    for side in (-1, 1):
        lens = face.turned(oval(side * (EYE + 0.02), 0.05, wide, tall, power), height=0.1)
        canvas.polygon(lens, tint, alpha)
        shine = np.array([(side * EYE - 0.18, 0.1), (side * EYE, -0.12)])
        canvas.line(face.turned(shine, height=0.1), 0.05, (255, 255, 255), 0.5 * glare)
        canvas.line(np.concatenate([lens, lens[:2]]), width, frame)
        arm = np.array([(side * (EYE + wide), -0.06), (side * face.head[0], -0.08)])
        canvas.line(face.turned(arm, height=0.05), width, frame)
    bridge = arch(EYE - wide + 0.04, 0.0, 0.06)
    canvas.line(face.turned(bridge, height=0.1), width, frame)


def _something_in_front(canvas: Canvas, face: Look, rng: np.random.Generator) -> None:
    """Now and then a hand at the face, a thing before it, or a strand across it."""
    kind, side = rng.uniform(), 1 if rng.uniform() < 0.5 else -1
    x, y = side * rng.uniform(0.5, 1.2), rng.uniform(0.9, 1.8)
    if kind < 0.05:
        for finger in _fingers(x, y, side):
            canvas.line(finger, 0.27, shade(face.skin, 0.6))
            canvas.line(finger, 0.22, shade(face.skin, 0.93))
    elif kind < 0.09:
        thing = oval(x * 0.8, y + 0.3, rng.uniform(0.2, 0.5), rng.uniform(0.3, 0.7), 3.0)
        canvas.polygon(thing, vivid(rng))
    elif kind < 0.13:
        along = np.linspace(0.0, 1.0, 9)
        across = side * (0.3 + 0.5 * along + 0.12 * np.sin(5 * along + x))
        strand = np.stack([across, -1.3 + 2.6 * along], axis=1)
        canvas.line(strand, rng.uniform(0.06, 0.14), shade(face.hair, 0.9))


def _fingers(x: float, y: float, side: int) -> Iterator[Points]:
    """Four fingers that point inwards and up, from below."""
    for number in range(4):
        base = np.array((x + side * (0.5 + 0.05 * number), y + 1.0 - 0.1 * number))
        tip = np.array((x - side * 0.1, y - 0.25 + 0.25 * number))
        knuckle = (base + tip) / 2 - (-side * 0.05, 0.05)
        yield np.array([base, knuckle, tip])
