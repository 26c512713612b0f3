"""Describes a garment's cloth: its colours, and where in the image it lies."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from shared.data.garments.body import Canvas, Floats, Pose
from shared.data.garments.shape import Cut, garment_width

Colour = tuple[float, float, float]
"""Holds red, green and blue, each from 0 to 1."""


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Returns a colour; `hue` is in turns, saturation and value are limited to 0 to 1."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))


def luminance(colour: Colour) -> float:
    """Returns the perceived brightness, 0 to 1 (Rec. 601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def byte_colour(colour: Colour) -> tuple[int, int, int]:
    """Returns the colour as Pillow expects it, 0 to 255."""
    return (round(255 * colour[0]), round(255 * colour[1]), round(255 * colour[2]))


def base_colour(fabric: str, rng: np.random.Generator) -> Colour:
    """Draws a random colour that is usual for the fabric."""
    if fabric == "denim":
        if rng.random() < 0.12:
            return hsv(0.6, rng.uniform(0, 0.1), rng.uniform(0.2, 0.75))
        return hsv(rng.uniform(0.57, 0.64), rng.uniform(0.35, 0.7), rng.uniform(0.3, 0.75))
    if fabric == "leather":
        if rng.random() < 0.5:
            return hsv(rng.random(), rng.uniform(0, 0.2), rng.uniform(0.07, 0.2))
        return hsv(rng.uniform(0.97, 1.09), rng.uniform(0.5, 0.9), rng.uniform(0.2, 0.5))
    if fabric == "chiffon":
        return hsv(rng.random(), rng.uniform(0.08, 0.4), rng.uniform(0.8, 1.0))
    if fabric == "knit":
        return hsv(rng.random(), rng.uniform(0.05, 0.5), rng.uniform(0.3, 0.9))
    if fabric == "faux":
        return hsv(rng.uniform(0.02, 0.13), rng.uniform(0.05, 0.55), rng.uniform(0.25, 0.95))
    return hsv(rng.random(), rng.choice([rng.uniform(0, 0.15), rng.uniform(0.3, 0.95)]), rng.uniform(0.12, 1.0))


def contrast_colour(base: Colour, rng: np.random.Generator, least: float = 0.25) -> Colour:
    """Draws a random colour whose brightness differs from that of `base` by at least `least`."""
    for _ in range(20):
        colour = hsv(rng.random(), rng.uniform(0, 0.95), rng.uniform(0.05, 1.0))
        if abs(luminance(colour) - luminance(base)) >= least:
            return colour
    return (1.0, 1.0, 1.0) if luminance(base) < 0.5 else (0.05, 0.05, 0.05)


@dataclass(frozen=True)
class Frame:
    """Says where a garment lies in the image."""

    canvas: Canvas
    cut: Cut
    x: Floats
    """Holds the figure coordinate of every pixel, `[side, side]`, counted from the garment's own middle."""
    y: Floats
    across: Floats
    """Gives x as a share of the trunk's half-width at that height: -1 and 1 are its edges."""

    @classmethod
    def of(cls, canvas: Canvas, cut: Cut, pose: Pose) -> Frame:
        """Returns the frame of a garment of that cut on a figure in that pose."""
        x, y = canvas.figure()
        heights = np.linspace(0.0, 1.2, 97)
        x = x - np.interp(y, heights, pose.shift(heights)).astype(np.float32)
        width = np.interp(y, heights, garment_width(cut, np.maximum(heights, cut.top))).astype(np.float32)
        return cls(canvas, cut, x, y, x / width)
