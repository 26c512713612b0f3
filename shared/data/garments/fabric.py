"""Renders the six fabrics and the three fits: how the cloth reflects light, and what shows through it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from shared.data.garments.body import SHOULDER, Floats
from shared.data.garments.cloth import Frame

FUR_CELLS = 44  # tufts along the side of the image, the same at every resolution


def soft_noise(side: int, cells: int, rng: np.random.Generator) -> Floats:
    """Returns smooth noise of about unit variance, `[side, side]`, with `cells` random values along each side."""
    values = rng.standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC))


def light_on(fabric: str, fit: str, frame: Frame, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Returns the factor on the cloth's colour and the light added to it (gloss), each `[side, side]`."""
    side = frame.canvas.side
    round_ = 1 - np.float32(rng.uniform(0.2, 0.4)) * np.clip(np.abs(frame.across), 0, 1.2) ** 2.5
    shade = round_ * (1 + _folds(fit, frame, rng))
    gloss = np.zeros((side, side), np.float32)
    if fabric == "denim":
        twill = np.sin((frame.x + frame.y) * np.float32(2 * np.pi / 0.018))
        worn = 0.2 * soft_noise(side, 7, rng)
        shade = shade * (
            1 + np.float32(0.15) * twill + worn + np.float32(0.07) * rng.standard_normal((side, side), np.float32)
        )
    elif fabric == "leather":
        ridges = soft_noise(side, 9, rng) + 0.5 * soft_noise(side, 18, rng)
        strength = np.float32(rng.uniform(0.35, 0.7))
        gloss = strength * np.exp(-((ridges / 0.22) ** 2)) * np.clip(1.1 - np.abs(frame.across), 0, 1)
    elif fabric == "knit":
        rib = np.float32(rng.uniform(0.036, 0.056))
        column_phase = np.abs(((frame.x / rib) % 1.0) - 0.5) * 2
        row = np.sin((frame.y / (rib * 0.75) + column_phase * 0.5) * np.float32(2 * np.pi))
        shade = shade * (
            1 - np.float32(rng.uniform(0.38, 0.55)) * column_phase**2 + np.float32(rng.uniform(0.08, 0.16)) * row
        )
    elif fabric == "faux":
        fur = 0.5 * soft_noise(side, 30, rng) + 0.5 * soft_noise(side, FUR_CELLS, rng)
        shade = shade * (1 + np.float32(rng.uniform(0.25, 0.4)) * fur)
    elif fabric == "chiffon":
        gloss = 0.08 * np.clip(soft_noise(side, 6, rng), 0, None)
    return np.clip(shade, 0.05, 1.7), gloss


def _folds(fit: str, frame: Frame, rng: np.random.Generator) -> Floats:
    """Returns the change of brightness by folds, `[side, side]`: long and hanging if the cloth is loose, short and across if it is tight."""
    wave = soft_noise(frame.canvas.side, 5, rng)
    if fit == "loose":
        phase = frame.across * np.float32(rng.uniform(2.5, 4.0)) + 0.3 * wave
        hanging = np.sin(phase * np.float32(np.pi)) * np.clip((frame.y - SHOULDER) / 0.2, 0, 1)
        folds: Floats = np.float32(rng.uniform(0.25, 0.38)) * hanging
    elif fit == "tight":
        phase = frame.y / np.float32(rng.uniform(0.06, 0.09)) + 0.35 * wave + np.abs(frame.across)
        near_waist = np.exp(-(((frame.y - 0.42) / 0.12) ** 2))
        folds = np.float32(rng.uniform(0.17, 0.28)) * np.sin(phase * np.float32(2 * np.pi)) * near_waist
    else:
        folds = np.float32(rng.uniform(0.03, 0.07)) * wave
    return folds


def opacity(fabric: str, mask: Image.Image, frame: Frame, rng: np.random.Generator) -> Floats:
    """Returns how much the cloth covers what is behind it, `[side, side]`, 0 to 1: chiffon is sheer, fur has a ragged edge."""
    if fabric == "faux":
        blurred = np.asarray(mask.filter(ImageFilter.GaussianBlur(frame.canvas.length(0.012))), np.float32) / 255
        ragged = blurred + 0.28 * soft_noise(frame.canvas.side, FUR_CELLS, rng)
        near = np.clip(blurred * 8 - 0.4, 0, 1)  # no tufts far from the coat
        return np.clip((ragged - 0.35) * 4, 0, 1) * near
    solid = np.asarray(mask, np.float32) / 255
    return solid * np.float32(rng.uniform(0.4, 0.68)) if fabric == "chiffon" else solid
