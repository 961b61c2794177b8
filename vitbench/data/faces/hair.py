"""The hair of a drawn face: waves run through its outline and through every strand.

Units and frame are those of `face_look`: lengths in d, the distance between the eyes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitbench.data.faces.canvas import Canvas, between
from vitbench.data.faces.look import Look, Points, shade

_STEPS, _STRANDS = 28, 9


def hair_behind(canvas: Canvas, face: Look) -> None:
    """The hair behind head and neck, in the shade."""
    edges = np.stack([_path(face, side, 0.85) for side in (-1, 1)])
    left, right = _waved(face, edges, np.zeros(1))
    canvas.polygon(between(left, right), shade(face.hair, 0.55))


def fall(canvas: Canvas, face: Look, rng: np.random.Generator) -> None:
    """The hair that falls from the parting to both sides, strand by strand."""
    for side in (-1, 1):
        phase = rng.uniform(0, 2 * np.pi)
        own = rng.uniform(-np.pi, np.pi, _STRANDS + 2) * face.wave[2]
        shades = rng.uniform(0.62, 1.3, _STRANDS)
        widths = rng.uniform(0.05, 0.12, _STRANDS)
        inner, outer = _path(face, side, 0.0), _path(face, side, 1.0)
        # Evenly spaced from the face's edge (0) to the outline (1), the edges included.
        place = np.linspace(0.0, 1.0, _STRANDS + 2)[:, None, None]
        strands = _waved(face, inner + (outer - inner) * place, phase + own)
        canvas.polygon(between(strands[0], strands[-1]), face.hair)
        for strand, tone, width in zip(strands[1:-1], shades, widths, strict=True):
            canvas.line(strand, width, shade(face.hair, tone))


def bangs(canvas: Canvas, face: Look, rng: np.random.Generator) -> None:
    """A fringe from the top of the head to the eyebrows."""
    roots = np.linspace(-0.75, 0.75, 10)
    ends = np.stack([roots * 1.35, rng.uniform(-0.62, -0.4, 10)], axis=1)
    tops = np.stack([roots, np.full(10, -1.75)], axis=1)
    along = np.linspace(0.0, 1.0, _STEPS)[None, :, None]
    strands = _waved(face, tops[:, None] + (ends - tops)[:, None] * along, np.zeros(1))
    edge = np.concatenate([tops[:1], ends, tops[-1:]])
    canvas.polygon(edge, face.hair)
    for strand, tone in zip(strands, rng.uniform(0.62, 1.25, 10), strict=True):
        canvas.line(strand, 0.14, shade(face.hair, tone))


def _path(face: Look, side: int, place: float) -> Points:
    """One side of the hair from the parting down, by the face (0) or at the outline (1)."""
    half, wide, end = face.head[0], face.hair_width, face.hair_end
    middle = (end - 0.9) / 2
    # Below the ears long hair lies beside the neck.
    tucked = half * (0.8 if end > 1.2 else 0.98)
    inner = np.array(
        [
            (face.parting, face.hairline),
            (side * 0.72, face.hairline + 0.12),
            (side * (half - 0.08), -0.5),
            (side * half * 0.98, middle),
            (side * tucked, end),
        ]
    )
    reach = half * wide
    outer = np.array(
        [
            (face.parting, -2.08),
            (side * reach * 0.8, -1.85),
            (side * (reach + 0.22), -0.9),
            (side * (reach + 0.36), middle),
            (side * (reach + 0.34), end),
        ]
    )
    return np.asarray(_SPLINE @ (inner + (outer - inner) * place))


def _waved(
    face: Look, paths: NDArray[np.float64], phases: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bend paths [S, P, 2] sideways into waves, which grow from the roots on.

    Args:
        phases: of each path at its root, [S] or [1].
    """
    amplitude, length, _ = face.wave
    steps = np.diff(paths, axis=1, prepend=paths[:, :1])
    run = np.cumsum(np.sqrt((steps**2).sum(axis=2)), axis=1)
    across = np.gradient(paths, axis=1)[..., ::-1] * (-1, 1)
    across /= np.sqrt((across**2).sum(axis=2, keepdims=True)) + 1e-9
    growth = np.clip(run / 1.2, 0.25, 1.0)
    swing = amplitude * growth * np.sin(2 * np.pi * run / length + phases[:, None])
    return np.asarray(paths + across * swing[..., None])


def _catmull_rom(knots: int, steps: int) -> NDArray[np.float64]:
    """The matrix [steps, knots] that draws a smooth curve through its knots."""
    basis = 0.5 * np.array([(0, 2, 0, 0), (-1, 0, 1, 0), (2, -5, 4, -1), (-1, 3, -3, 1)])
    matrix = np.zeros((steps, knots))
    for row, place in enumerate(np.linspace(0.0, knots - 1, steps)):
        left = min(int(place), knots - 2)
        t = place - left
        weights = np.array((1, t, t * t, t**3)) @ basis
        for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
            matrix[row, min(max(left + offset, 0), knots - 1)] += weight
    return matrix


_SPLINE = _catmull_rom(5, _STEPS)
