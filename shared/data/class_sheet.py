"""A contact sheet with a row of pictures for each class, the rarest classes first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.data.schema import Labels, LabelSchema, class_counts
from shared.data.sheet import contact_sheet

CLASSES = 40  # the rarest ones
COLUMNS = 8  # pictures of each
SIDE = 64  # px: a thumbnail, so that nobody's photograph travels in a report


def class_sheet(
    schema: LabelSchema, labels: Labels, thumbnail: Callable[[int], NDArray[np.uint8] | None]
) -> Image.Image:
    """Draws it for images with `labels` `[n, C]`; `thumbnail` gives the pixels `[SIDE, SIDE, 3]` of one by its position, None if unusable."""
    blank = np.full((SIDE, SIDE, 3), 255, np.uint8)
    counts = class_counts(labels)
    pictures, captions = [], []
    for column in np.argsort(counts, kind="stable")[:CLASSES]:
        row: list[NDArray[np.uint8]] = []
        for image in np.flatnonzero(labels[:, column] == 1).tolist():
            if len(row) == COLUMNS:
                break
            if (pixels := thumbnail(image)) is not None:
                row.append(pixels)
        group, _, name = schema.class_names[column].partition("/")
        pictures += row + [blank] * (COLUMNS - len(row))
        captions += [f"{' '.join(name.split())}\n{group}: {counts[column]}", *[""] * (COLUMNS - 1)]
    return contact_sheet(pictures, captions, columns=COLUMNS, side=SIDE, lines=2)
