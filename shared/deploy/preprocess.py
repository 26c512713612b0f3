"""Reads an image file as training does: by way of the canonical form of `prepare`, so that the network sees the same pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.data.canonical import canonical_bytes
from shared.data.imageset import decode
from shared.data.problems import BadImage
from shared.deploy.description import Preprocessing
from shared.deploy.listing import ListedImage


def read_pixels(image: ListedImage, how: Preprocessing) -> NDArray[np.uint8]:
    """Returns the network's input before it is normalised, `[3, r, r]`, RGB 0 to 255; raises BadImage if the image cannot be used."""
    if image.fault is not None:
        raise BadImage("unusable path", image.fault)
    data = canonical_bytes(image.path, how.stored_resolution, how.fit)
    return decode(data, how.resolution, image.name).transpose(2, 0, 1)


def normalised(pixels: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.float32]:
    """Returns pixels `[n, 3, r, r]`, 0 to 255, as the exported graph takes them: in 0 to 1, less the mean, by the standard deviation."""
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (how.mean, how.std))
    return np.asarray((pixels.astype(np.float32) / np.float32(255) - mean) / std, np.float32)
