"""Reads tables whose cells are pixels: a column per pixel beside the label, as Kaggle's copies of MNIST have, or all pixels in one cell, as FER2013 has."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.data.source import SplitName
from shared.data.sources.split_words import split_of, split_of_file
from shared.errors import DataError
from shared.names import shown

LABELS = frozenset({"label", "labels", "emotion", "class", "target", "y"})
PIXEL = re.compile(r"pixel_?\d+|\d+x\d+", re.IGNORECASE)
LEAST_SIDE = 8
MOST_VALUES = 1 << 30  # of one file: it is read into memory

Part = tuple[SplitName | None, NDArray[np.uint8], NDArray[np.int64]]
"""Holds a split, its pixels `[n, h, w]` or `[n, h, w, 3]`, and its class numbers `[n]`."""


def pixel_columns(path: Path) -> tuple[str, list[str]] | None:
    """Returns the column of the label and those of the pixels; None if the file is no such table."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = [name.strip() for name in next(csv.reader([file.readline(1 << 20)]), [])]
    except (OSError, UnicodeError, csv.Error):
        return None
    label = next((name for name in header if name.lower() in LABELS), None)
    pixels = [name for name in header if PIXEL.fullmatch(name)]
    if label is not None and (len(pixels) >= LEAST_SIDE**2 or "pixels" in header):
        return label, pixels or ["pixels"]
    return None


def read_pixels(path: Path, file: str) -> list[Part]:
    """Returns the images of a table by split: what a column `Usage` says, else the name of the file.

    Raises DataError if a cell is no pixel or class number, or if the pixels make no square images.
    """
    columns = pixel_columns(path)
    if columns is None:
        raise DataError(
            f"{file}: must have a column of class numbers, called `label`, and columns of pixels, called `pixel0` and so on"
        )
    label, pixels = columns
    images, labels, splits = list[NDArray[np.uint8]](), list[int](), list[SplitName | None]()
    for number, row in _rows(path, file):
        cells = row[pixels[0]].split() if pixels == ["pixels"] else [row[name] for name in pixels]
        try:
            values = np.array(cells, np.float64)
            code = int(row[label])
        except (ValueError, TypeError):
            raise DataError(
                f"{file} line {number}: must hold a class number and pixels, got {shown([row[label], *cells[:3]])}; correct it"
            ) from None
        if code < 0 or values.size == 0 or not ((values >= 0) & (values <= 255)).all():
            raise DataError(f"{file} line {number}: its pixels must be 0 to 255 and its class at least 0; correct it")
        if images and values.size != images[0].size:
            raise DataError(
                f"{file} line {number}: has {values.size} pixels, the first row has {images[0].size}; they must agree"
            )
        if values.size * (len(images) + 1) > MOST_VALUES:
            raise DataError(f"{file}: has more than {MOST_VALUES:,} pixels; save it as a NumPy archive per split")
        images.append(values.astype(np.uint8))
        labels.append(code)
        usage = next((text for name, text in row.items() if name and name.lower() in ("usage", "split")), None)
        splits.append(split_of(usage) if usage is not None else split_of_file(path.stem))
    if not images:
        raise DataError(f"{file}: has no rows under its header; there must be a row per image")
    shaped = np.stack(images).reshape(len(images), *_shape(images[0].size, file))
    found = np.array(labels, np.int64)
    names = np.array([split or "" for split in splits])
    return [(split, shaped[names == (split or "")], found[names == (split or "")]) for split in dict.fromkeys(splits)]


def _rows(path: Path, file: str) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, skipinitialspace=True)
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{file} line {reader.line_num}: must have as many cells as the first line; correct it"
                    )
                yield reader.line_num, row
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read ({str(error)[:80]}); save it as UTF-8") from error


def _shape(size: int, file: str) -> tuple[int, ...]:
    for channels in (1, 3):
        side = math.isqrt(size // channels)
        if size == side * side * channels and side >= LEAST_SIDE:
            return (side, side) if channels == 1 else (side, side, 3)
    raise DataError(f"{file}: {size} pixels make no square image, grey or with 3 colours; save it as a NumPy archive")
