"""Computes SHA-256 digests of files and streams, which name blobs and tell whether bytes are the expected ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes in hexadecimal digits; raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stream_digest(chunks: Iterable[bytes]) -> str:
    """Returns the SHA-256 of the bytes of all chunks in hexadecimal digits; holds one chunk at a time."""
    total = hashlib.sha256()
    for chunk in chunks:
        total.update(chunk)
    return total.hexdigest()
