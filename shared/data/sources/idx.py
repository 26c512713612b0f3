"""Reads IDX files, the form of MNIST and its relatives: two zeros, the type, the number of dimensions, each size, the values."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError

MOST_VALUES = 1 << 29  # of one file (680,000 images of 28 x 28); a header may claim 2^96


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Returns the array of unsigned bytes in an IDX file (two zeros, 8, the number of dimensions, each as big-endian 32 bits, the values).

    Raises DataError if it is anything else or has more or fewer values than its header says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _parse_idx(file, dimensions, path.name)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name}: cannot be read ({error}); fetch the file again") from error


def _parse_idx(file: BinaryIO | gzip.GzipFile, dimensions: int, name: str) -> NDArray[np.uint8]:
    header = file.read(4 + 4 * dimensions)
    magic = bytes([0, 0, 8, dimensions])
    if header[:4] != magic:
        raise DataError(f"{name}: must begin with the IDX magic {magic.hex()}, got {header[:4].hex() or 'nothing'}")
    shape = tuple(int(size) for size in np.frombuffer(header[4:].ljust(4 * dimensions, b"\0"), ">u4"))
    size = 1
    for length in shape:
        size *= length
    if not 0 < size <= MOST_VALUES:
        raise DataError(f"{name}: its header says {' x '.join(map(str, shape))} values; fetch the file again")
    values = file.read(size)
    if len(values) < size or file.read(1):
        found = f"{len(values)}" if len(values) < size else "more"
        raise DataError(f"{name}: its header says {size} values, it has {found}; it was cut short or changed")
    return np.frombuffer(values, np.uint8).reshape(shape)
