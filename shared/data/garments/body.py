"""Places things on a drawn figure: its pose, the outlines of body, garment and sleeves, and masks of them.

In figure coordinates, x runs to the right from the figure's middle, and y downwards from the top of the head (0) to the feet (1). A `Canvas`
maps them to the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.floating[Any]]
Points = NDArray[np.floating[Any]]
"""Holds the corners of a polygon, `[k, 2]` as (x, y) in figure coordinates."""

SHOULDER, WAIST, HIP = 0.215, 0.41, 0.53  # heights on the figure
SHOULDER_WIDTH = 0.185  # half, of the body
BODY_Y = np.array([SHOULDER, 0.27, WAIST, HIP, 0.60])
BODY_WIDTH = np.array(
    [0.175, 0.165, 0.135, 0.175, 0.165]
)  # half, at those heights; the proportions of a fashion doll, broad so that small images show them


@dataclass(frozen=True)
class Canvas:
    """Draws on a square image of `side` pixels, onto which the figure is scaled, turned and moved."""

    side: int
    matrix: Points
    """Holds the matrix `[2, 2]` that maps figure coordinates to pixels."""
    offset: Points
    """Holds the offset `[2]` in pixels, which is added after the matrix."""

    @classmethod
    def place(cls, side: int, zoom: float, centre: tuple[float, float], angle: float) -> Canvas:
        """Returns the canvas with the figure's point `centre` in its middle, turned by `angle` (radians).

        Its side shows 1 / `zoom` of the figure.
        """
        scale = side * zoom
        matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return cls(side, matrix, side / 2 - matrix @ np.array(centre))

    def pixels(self, points: Points) -> list[tuple[float, float]]:
        """Maps points of the figure to pixels."""
        return [(float(x), float(y)) for x, y in points @ self.matrix.T + self.offset]

    def figure(self) -> tuple[Floats, Floats]:
        """Returns the figure coordinates x and y of every pixel, each `[side, side]`."""
        inverse = np.linalg.inv(self.matrix).astype(np.float32)
        column, row = _grid(self.side)
        u, v = column - np.float32(self.offset[0]), row - np.float32(self.offset[1])
        return inverse[0, 0] * u + inverse[0, 1] * v, inverse[1, 0] * u + inverse[1, 1] * v

    def length(self, figure_length: float) -> float:
        """Returns a length of the figure in pixels."""
        return float(figure_length * np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    def mask(self, *polygons: Points) -> Image.Image:
        """Returns the polygons, filled with 255 on black, mode L."""
        image = Image.new("L", (self.side, self.side))
        draw = ImageDraw.Draw(image)
        for polygon in polygons:
            draw.polygon(self.pixels(polygon), fill=255)
        return image


@lru_cache(maxsize=4)
def _grid(side: int) -> tuple[Floats, Floats]:
    row, column = np.mgrid[:side, :side].astype(np.float32) + np.float32(0.5)
    return column, row


@dataclass(frozen=True)
class Pose:
    """Says how the figure stands. An arm is a path of shoulder, elbow and wrist, `[3, 2]`."""

    arms: tuple[Points, Points]
    sway: float
    """Gives the sideways shift of the hip."""

    def shift(self, y: Floats) -> Floats:
        """Returns the sideways shift of the figure's middle at heights y."""
        shifted: Floats = self.sway * np.clip((y - SHOULDER) / (HIP - SHOULDER), 0, 1.2)
        return shifted


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draws a random pose: arms hang, bend, rest on the hip or are raised a little; the weight is on either leg."""
    arms = []
    for side in (-1.0, 1.0):
        upper = rng.uniform(0.12, 0.6)  # radians from straight down, outwards
        bend = rng.choice([rng.uniform(-0.25, 0.15), rng.uniform(-1.6, -0.5)], p=[0.7, 0.3])
        shoulder = np.array([side * (SHOULDER_WIDTH - 0.02), SHOULDER + 0.025])
        elbow = shoulder + 0.175 * np.array([side * np.sin(upper), np.cos(upper)])
        wrist = elbow + 0.165 * np.array([side * np.sin(upper + bend), np.cos(upper + bend)])
        arms.append(np.stack([shoulder, elbow, wrist]))
    return Pose((arms[0], arms[1]), rng.normal(0, 0.012))


def smooth_widths(y: Floats, knots: Sequence[float] | Points, widths: Sequence[float] | Points) -> Points:
    """Returns half-widths at heights y: smoothstep between the knots, constant beyond them."""
    knots, widths = np.asarray(knots, float), np.asarray(widths, float)
    right = np.clip(np.searchsorted(knots, y), 1, len(knots) - 1)
    t = np.clip((y - knots[right - 1]) / (knots[right] - knots[right - 1]), 0, 1)
    t = t * t * (3 - 2 * t)
    result: Points = widths[right - 1] * (1 - t) + widths[right] * t
    return result


def column(pose: Pose, y: Points, widths: Points) -> Points:
    """Returns a closed outline, symmetric about the figure's middle, which the pose may shift."""
    middle = pose.shift(y)
    left, right = np.stack([middle - widths, y], 1), np.stack([middle + widths, y], 1)
    return np.concatenate([left, right[::-1]])


def limb(path: Points, widths: tuple[float, float], share: tuple[float, float] = (0.0, 1.0)) -> Points:
    """Returns a limb's outline along a path of three points, from one share of its length to another, with half-widths at both ends."""
    t = np.linspace(share[0], share[1], 9)
    along = np.stack([np.interp(t, [0, 0.51, 1], path[:, axis]) for axis in (0, 1)], 1)
    step = np.gradient(along, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], 1) / np.maximum(np.hypot(step[:, 0], step[:, 1]), 1e-9)[:, None]
    width = np.linspace(widths[0], widths[1], len(t))[:, None]
    return np.concatenate([along + normal * width, (along - normal * width)[::-1]])


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    """Returns an ellipse's outline."""
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([x + rx * np.cos(t), y + ry * np.sin(t)], 1)
