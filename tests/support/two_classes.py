"""Writes the smallest data set that a study accepts: two classes of noise, with one folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = {"many": 40, "few": 14}


def write_images(folder: Path) -> None:
    """Writes PNGs of 32 × 32 pixels; those of the class `few` are brighter."""
    rng = np.random.default_rng(0)
    for kind, count in COUNTS.items():
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 120, (32, 32, 3), np.uint8) + np.uint8(100 * (kind == "few"))
            Image.fromarray(pixels).save(folder / kind / f"{number}.png")
