"""Makes images of noise with random labels, on which work is timed."""

from __future__ import annotations

import numpy as np
from PIL import Image

from shared.data.encode import encode_image
from shared.data.imageset import ImageSet
from shared.data.schema import LabelSchema


def random_images(schema: LabelSchema, resolution: int, count: int) -> ImageSet:
    """Returns `count` training images of `resolution` pixels, each with one class per label group; the same ones each time."""
    rng = np.random.default_rng(0)
    encoded = [
        encode_image(Image.fromarray(rng.integers(0, 256, (resolution, resolution, 3), np.uint8))) for _ in range(count)
    ]
    labels = np.zeros((count, schema.width), np.int8)
    for columns in schema.slices().values():
        labels[np.arange(count), rng.integers(columns.start, columns.stop, count)] = 1
    names = [f"random {i}" for i in range(count)]
    return ImageSet(schema, encoded, names, np.array(["train"] * count), labels)
