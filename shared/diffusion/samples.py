"""Draws the sample sheet: real images of each class beside generated ones with the same labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.data.imageset import ImageSet, decode
from shared.data.sheet import contact_sheet
from shared.diffusion.generator import Generator, SampleRequest

REAL = GENERATED = 4
"""Sets the number of images of each kind per row."""
ROWS = 12
"""Limits the number of rows, so that a sheet can be taken in at a glance."""


def sample_sheet(
    generator: Generator, images: ImageSet, columns: NDArray[np.int64], guidance: float, steps: int, seed: int
) -> Image.Image:
    """Draws a row for each class of `columns` that `images` (the train split) has; only the rarest ones if there are many."""
    counts = {int(c): int((images.labels[:, c] == 1).sum()) for c in columns}
    chosen = sorted(sorted((c for c in counts if counts[c]), key=lambda c: counts[c])[:ROWS])
    rng = np.random.default_rng(seed)
    pixels: list[NDArray[np.uint8]] = []
    captions: list[str] = []
    drawn = []
    for column in chosen:
        rows = rng.choice(np.flatnonzero(images.labels[:, column] == 1), REAL)
        requests = [SampleRequest(images.labels[i], int(rng.integers(2**63))) for i in rows]
        drawn.append((images.schema.class_names[column], rows, requests))
    generator.prepare(["", *(generator.prompt(request.labels) for _, _, requests in drawn for request in requests)])
    for name, rows, requests in drawn:
        pixels += [decode(images.encoded[i], generator.resolution, images.paths[i]) for i in rows]
        captions += [name] * REAL
        pixels += list(generator.sample(requests, guidance, steps))
        captions += ["generated"] * GENERATED
    return contact_sheet(pixels, captions, REAL + GENERATED)
