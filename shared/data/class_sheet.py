"""Draws a contact sheet with a row of images per class, the rarest classes first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.data.schema import Labels, LabelSchema, class_counts
from shared.data.sheet import contact_sheet

CLASSES = 40  # rows at most: the rarest classes
COLUMNS = 8  # images per class
SIDE = 64  # px: thumbnails, so that no photograph is passed on at its full size


def class_sheet(
    schema: LabelSchema, labels: Labels, thumbnail: Callable[[int], NDArray[np.uint8] | None]
) -> Image.Image:
    """Draws the sheet of the images with `labels` `[n, C]`.

    `thumbnail` returns the pixels `[SIDE, SIDE, 3]` of the image at a position, or None if it cannot be used.
    """
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
