"""Reads an image file as training does: by way of the canonical form of `prepare`, so that the network sees the same pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.data.canonical import Reading, canonical_bytes
from shared.data.imageset import decode
from shared.data.problems import BadImage
from shared.deploy.description import Preprocessing
from shared.deploy.listing import ListedImage


def reading_of(how: Preprocessing) -> Reading:
    """Returns the settings by which files are opened."""
    return Reading(how.window, how.most_pixels)


def read_pixels(image: ListedImage, how: Preprocessing) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Returns the network's input before it is normalised, `[3, r, r]`, RGB 0 to 255, and what was left out or chosen to read it.

    Raises BadImage if the image cannot be used. Pillow's limit of pixels must be lifted as far as `reading_of` says.
    """
    if image.fault is not None:
        raise BadImage("unusable path", image.fault)
    data, notes = canonical_bytes(image.path, how.stored_resolution, how.fit, reading_of(how))
    return decode(data, how.resolution, image.name).transpose(2, 0, 1), notes


def normalised(pixels: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.float32]:
    """Returns pixels `[n, 3, r, r]`, 0 to 255, as the exported graph takes them: in 0 to 1, less the mean, by the standard deviation."""
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (how.mean, how.std))
    return np.asarray((pixels.astype(np.float32) / np.float32(255) - mean) / std, np.float32)
