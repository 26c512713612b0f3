"""Defines the store: objects by key, and create-if-absent, on which all commits rely.

`shared.artifacts.s3` and `shared.artifacts.folder` implement it; `tests/shared/artifacts/test_store.py` tests what both must do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from shared.errors import ArtifactError

LARGEST_IN_MEMORY = 64 << 20  # bytes; a manifest has at most a few megabytes


class NotFound(Exception):
    """Says that no object has that key. Callers turn it into an error for people if it is one."""


class Store(Protocol):
    """Holds objects by key (`a/b/c`). It is safe to use from several threads and processes.

    All methods raise UnavailableError if the server is unavailable after bounded retries, and ArtifactError if it refuses permanently.
    """

    @property
    def url(self) -> str:
        """Returns the location without secrets: `s3://bucket/prefix` or a path."""

    def put(self, key: str, data: bytes) -> None:
        """Writes an object, whole or not at all, and replaces an existing one."""

    def put_file(self, key: str, path: Path) -> None:
        """Writes an object from a file of any size, as `put` does."""

    def create(self, key: str, data: bytes) -> bool:
        """Writes an object if the key has none, else returns False. Of several concurrent calls exactly one returns True."""

    def get(self, key: str) -> bytes:
        """Returns the object's bytes; raises NotFound, and ArtifactError if there are more than LARGEST_IN_MEMORY."""

    def get_file(self, key: str, path: Path, size: int | None = None) -> None:
        """Writes the object's bytes to a file; raises NotFound, and ArtifactError as soon as there are more than `size`, if it is given."""

    def exists(self, key: str) -> bool:
        """Returns whether the object exists."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yields the keys that begin with `prefix`, in order."""

    def delete(self, key: str) -> None:
        """Removes an object if it exists."""


def too_long(location: str, size: int) -> ArtifactError:
    """Returns the error for an object that has, or sends, more than the `size` bytes that were expected."""
    return ArtifactError(
        f"{location}: has more than the {size:,} bytes that were expected, and was not read on; it was changed: restore it, or if it "
        "is an artifact make it again with --rerun"
    )


def check_size(size: int, location: str) -> None:
    """Raises ArtifactError for an object that is too large to be read into memory: whoever can write to a bucket can put one there."""
    if size > LARGEST_IN_MEMORY:
        raise ArtifactError(
            f"{location}: has {size} bytes, more than the {LARGEST_IN_MEMORY} of anything that is written there; remove it"
        )
