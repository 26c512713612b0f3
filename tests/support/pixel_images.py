"""Makes a tiny labelled image set: coloured shapes on noise."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from shared.data.imageset import ImageSet
from shared.data.schema import LabelGroup, LabelSchema

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="colour", classes=("red", "blue")),
        LabelGroup(name="mark", kind="any", classes=("bar", "dot")),
    )
)


def shapes(count: int, side: int = 16, seed: int = 0) -> ImageSet:
    """Returns the split `train`: a quarter is blue, half has each mark, and the colour of every tenth image is unknown."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((count, 4), np.int8)
    encoded = []
    for i in range(count):
        blue, marks = i % 4 == 0, rng.random(2) < 0.5
        labels[i] = [not blue, blue, *marks]
        pixels = rng.integers(0, 60, (side, side, 3), np.uint8)
        pixels[4:12, 4:12, 2 if blue else 0] = 255
        if marks[0]:
            pixels[:2] = 255
        if marks[1]:
            pixels[-3:, -3:] = 255
        if i % 10 == 9:
            labels[i, :2] = -1
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return ImageSet(SCHEMA, encoded, [f"{i}.png" for i in range(count)], np.full(count, "train"), labels)
