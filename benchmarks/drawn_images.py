"""Draws images for benchmarks whose content does not matter."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from shared.data.imageset import ImageSet
from shared.data.schema import LabelGroup, LabelSchema

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="colour", classes=("red", "green", "blue")),
        LabelGroup(name="shape", classes=("square", "circle")),
    )
)
SPOTS = 8  # along each side
QUALITY = 95


def drawn_images(count: int, side: int, seed: int = 0) -> ImageSet:
    """Returns JPEG images of coloured spots and some noise, which decode and compress about as photographs do; each label is as frequent."""
    random = np.random.default_rng(seed)
    labels = np.zeros((count, SCHEMA.width), np.int8)
    encoded = []
    for i in range(count):
        labels[i, [i % 3, 3 + i % 2]] = 1
        spots = Image.fromarray(random.integers(0, 256, (SPOTS, SPOTS, 3), np.uint8))
        pixels = np.asarray(spots.resize((side, side), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (pixels + random.integers(-8, 9, pixels.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=QUALITY)
        encoded.append(buffer.getvalue())
    return ImageSet(SCHEMA, encoded, [f"{i}.jpg" for i in range(count)], np.full(count, "train"), labels)
