"""Paints the seven patterns: the cloth's own colour at each pixel, before it is lit."""

from __future__ import annotations

import itertools

import numpy as np
from PIL import Image, ImageDraw

from shared.data.garments.body import Floats
from shared.data.garments.cloth import Colour, Frame, byte_colour, contrast_colour, hsv


def paint_pattern(pattern: str, base: Colour, frame: Frame, rng: np.random.Generator) -> Floats:
    """Returns the cloth's colour before it is lit, `[side, side, 3]`, 0 to 1."""
    side = frame.canvas.side
    image = Image.new("RGB", (side, side), byte_colour(base))
    if pattern == "floral":
        _flowers(image, base, frame, rng)
    elif pattern == "graphic":
        _emblem(image, base, frame, rng)
    elif pattern == "embroidered":
        _embroidery(image, base, frame, rng)
    cloth: Floats = np.asarray(image, np.float32) / 255
    if pattern in ("striped", "lattice"):
        cloth = _bands(cloth, base, frame, rng, crossed=pattern == "lattice")
    elif pattern == "pleated":
        cloth = cloth * _pleats(frame, rng)[..., None]
    return cloth


def _bands(cloth: Floats, base: Colour, frame: Frame, rng: np.random.Generator, crossed: bool) -> Floats:
    period = rng.uniform(0.045, 0.085) if not crossed else rng.uniform(0.055, 0.1)
    share = rng.uniform(0.3, 0.55) if not crossed else rng.uniform(0.25, 0.42)
    angle = rng.normal(0, 0.06) + (np.pi / 4 if crossed and rng.random() < 0.25 else 0.0)
    if not crossed:
        angle += rng.choice([0.0, np.pi / 2, np.pi / 4], p=[0.5, 0.4, 0.1])
    colour = np.array(contrast_colour(base, rng), np.float32)
    along = frame.y * np.float32(np.cos(angle)) + frame.x * np.float32(np.sin(angle))
    across = frame.x * np.float32(np.cos(angle)) - frame.y * np.float32(np.sin(angle))
    weight = _square_wave(along / np.float32(period), share)
    if crossed:
        # the colour is full only at crossings, as in woven checks
        weight = (weight + _square_wave(across / np.float32(period), share)) / 2
    return cloth + weight[..., None] * (colour - cloth)


def _square_wave(phase: Floats, share: float) -> Floats:
    wave: Floats = ((phase % 1.0) < share).astype(np.float32)
    return wave


def _pleats(frame: Frame, rng: np.random.Generator) -> Floats:
    number = rng.uniform(5, 9)
    depth = np.float32(rng.uniform(0.35, 0.6))
    phase = (frame.across * np.float32(number / 2) + np.float32(rng.random())) % 1.0
    shade: Floats = 1 - depth * phase**2  # each fold darkens towards its edge, at which the next begins
    return shade


def _flowers(image: Image.Image, base: Colour, frame: Frame, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(image)
    colours = [byte_colour(contrast_colour(base, rng, 0.18)) for _ in range(2)]
    leaf = byte_colour(hsv(rng.uniform(0.22, 0.42), rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.7)))
    centre = byte_colour(hsv(rng.uniform(0.1, 0.16), 0.8, rng.uniform(0.7, 1.0)))
    size = rng.uniform(0.017, 0.034)
    spacing = size * rng.uniform(2.7, 3.6)
    columns, rows = int(0.62 / spacing) + 1, int((frame.cut.hem - 0.14) / spacing) + 1
    places = np.stack(np.meshgrid(np.arange(columns) - columns / 2, np.arange(rows)), -1).reshape(-1, 2) * spacing
    places = places + [0.0, 0.16] + rng.uniform(-0.38, 0.38, places.shape) * spacing
    turns, kinds = rng.random(len(places)) * 6.3, rng.integers(0, 6, len(places))
    for (px, py), turn, kind in zip(frame.canvas.pixels(places), turns, kinds, strict=True):
        r = frame.canvas.length(size)
        if kind == 0:
            draw.ellipse((px - r * 0.5, py - r, px + r * 0.5, py + r), fill=leaf)
            continue
        for petal in range(5):
            qx, qy = px + 0.62 * r * np.cos(turn + petal * 1.2566), py + 0.62 * r * np.sin(turn + petal * 1.2566)
            draw.ellipse((qx - r * 0.5, qy - r * 0.5, qx + r * 0.5, qy + r * 0.5), fill=colours[kind % 2])
        draw.ellipse((px - r * 0.3, py - r * 0.3, px + r * 0.3, py + r * 0.3), fill=centre)


def _emblem(image: Image.Image, base: Colour, frame: Frame, rng: np.random.Generator) -> None:
    """Draws one large print on the chest: a disc, a star, a block of words, or a framed picture."""
    draw = ImageDraw.Draw(image)
    canvas = frame.canvas
    x, y, size = rng.normal(0, 0.01), rng.uniform(0.325, 0.37), rng.uniform(0.055, 0.09)
    first, second = (byte_colour(contrast_colour(base, rng, least)) for least in (0.3, 0.2))
    kind = rng.integers(0, 4)

    def shape(points: list[tuple[float, float]], fill: tuple[int, int, int]) -> None:
        draw.polygon(canvas.pixels(np.array(points) * size + [x, y]), fill=fill)

    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    if kind == 0:
        shape([(np.cos(t), np.sin(t)) for t in turn], first)
        shape([(0.55 * np.cos(t), 0.55 * np.sin(t)) for t in turn], second)
    elif kind == 1:
        radii = np.where(np.arange(10) % 2 == 0, 1.2, 0.5)
        shape([(r * np.sin(i * np.pi / 5), -r * np.cos(i * np.pi / 5)) for i, r in enumerate(radii)], first)
    elif kind == 2:
        for line in range(3):
            left, right = -1.3 * rng.uniform(0.75, 1), 1.3 * rng.uniform(0.75, 1)
            low = -0.75 + 0.6 * line
            edges = np.linspace(left, right, 8)
            for a, b in itertools.pairwise(edges):
                shape([(a, low), (b - 0.08, low), (b - 0.08, low + 0.38), (a, low + 0.38)], first)
    else:
        shape([(-1, -1.1), (1, -1.1), (1, 1.1), (-1, 1.1)], first)
        shape([(-0.9, 1), (-0.1, -0.5), (0.35, 0.3), (0.6, -0.1), (0.9, 1)], second)


def _embroidery(image: Image.Image, base: Colour, frame: Frame, rng: np.random.Generator) -> None:
    """Draws stitched ornaments: bands of lozenges and dots below the neck, at the hem, and down the middle."""
    draw = ImageDraw.Draw(image)
    thread = byte_colour(contrast_colour(base, rng, 0.3))
    second = byte_colour(contrast_colour(base, rng, 0.2))
    step = rng.uniform(0.028, 0.038)
    rows = [rng.uniform(0.30, 0.33), rng.uniform(0.34, 0.37), frame.cut.hem - rng.uniform(0.025, 0.035)]
    if frame.cut.hem > 0.62:
        rows.append(frame.cut.hem - 0.075)
    places = [(column * step, row) for row in rows for column in range(-9, 10)]
    if rng.random() < 0.6:
        places += [(0.0, y) for y in np.arange(0.38, frame.cut.hem - 0.05, step)]
    for number, (x, y) in enumerate(places):
        r = step * (0.46 if number % 2 else 0.3)
        lozenge = np.array([[x - r, y], [x, y - r], [x + r, y], [x, y + r]])
        draw.polygon(frame.canvas.pixels(lozenge), fill=thread if number % 2 else second)
