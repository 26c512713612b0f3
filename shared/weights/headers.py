"""Reads what a file of weights holds, the names and shapes of its tensors, from its header alone, and says what it is if it is no safetensors.

The header is 8 bytes with its length and as many bytes of JSON; the tensors follow. It imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from shared.errors import DataError
from shared.names import shown

LARGEST = 100_000_000  # bytes of a header, the limit of the library safetensors
FIRST = 1 << 16  # bytes that are read first, which hold most headers whole
STARTS = {
    b"version https://git-lfs": "is a pointer of Git LFS in place of the weights; fetch them with `git lfs pull`",
    b"<": "is a web page or XML, as a failed download leaves it; download the weights again",
    b"\x1f\x8b": "is compressed by gzip; unpack it",
    b"\x89HDF": "is an HDF5 file, as Keras writes it; name a safetensors file",
    b"GGUF": "is a GGUF file; name a safetensors file",
    b"{": "is JSON, such as the index of weights in parts; name a file that holds the weights whole",
}
"""Maps what files that are often taken for weights begin with to what they are."""
Shape = tuple[int, ...]


def starts_pickle(start: bytes) -> bool:
    """Returns whether bytes begin a bare pickle, or the zip archive that torch.save writes around one."""
    return start[:1] == b"\x80" or start[:4] == b"PK\x03\x04"


def is_pickle(path: Path) -> bool:
    """Returns whether a file is a pickle, by its first bytes."""
    return starts_pickle(start_of(path, 4))


def tensor_shapes(path: Path, what: str) -> dict[str, Shape]:
    """Returns the shapes of the tensors in a safetensors file by name, in the file's order; raises DataError as shapes_from does."""
    return shapes_from(partial(start_of, path), path.stat().st_size, what)


def start_of(path: Path, length: int) -> bytes:
    """Returns the first `length` bytes of a file, or all if it has fewer."""
    with path.open("rb") as file:
        return file.read(length)


def shapes_from(start: Callable[[int], bytes], size: int, what: str) -> dict[str, Shape]:
    """Returns the shapes of the tensors in a safetensors file of `size` bytes, wherever it is, by name and in the file's order.

    `start` returns as many of its first bytes as it is asked for. Raises DataError, which begins with `what`, if it is no safetensors
    file or is cut short.
    """
    if size == 0:
        raise DataError(f"{what} is empty; download or copy it again")
    begin = start(FIRST)
    length = int.from_bytes(begin[:8], "little")
    begins = begin.lstrip().removeprefix(b"\xef\xbb\xbf")
    for known, text in STARTS.items():
        if begins.startswith(known) and begin[8:9] != b"{":
            raise DataError(f"{what} {text}")
    if size < 8 or length > LARGEST or begin[8:9] != b"{":
        raise DataError(f"{what} is no safetensors file (its header would have {length:,} bytes); name one")
    header = (begin if 8 + length <= len(begin) else start(8 + length))[8 : 8 + length]
    if len(header) < length:
        raise DataError(f"{what} is cut short within its header, at {size:,} bytes; download or copy it again")
    try:
        entries: Any = json.loads(header)
        if not isinstance(entries, dict):
            raise ValueError("it is no JSON object")
        tensors = {name: _entry(name, value) for name, value in entries.items() if name != "__metadata__"}
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} is no safetensors file (its header: {str(error)[:200]}); name one") from error
    end = 8 + length + max((last for _, last in tensors.values()), default=0)
    if size < end:
        raise DataError(f"{what} is cut short: it has {size:,} bytes of {end:,}; download or copy it again")
    return {name: shape for name, (shape, _) in tensors.items()}


def _entry(name: str, value: object) -> tuple[Shape, int]:
    """Returns the shape of a tensor and where its bytes end; raises ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{shown(name)} is described by {shown(value)}")
    shape, offsets = (_numbers(value.get(key)) for key in ("shape", "data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2:
        raise ValueError(f"{shown(name)} has no valid shape or offsets")
    return shape, offsets[1]


def _numbers(value: object) -> Shape | None:
    if not isinstance(value, list) or not all(isinstance(n, int) and n >= 0 for n in value):
        return None
    return tuple(value)
