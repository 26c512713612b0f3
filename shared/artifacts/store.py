"""Defines the store: objects by key, and create-if-absent, on which all commits rely.

`shared.artifacts.s3` and `shared.artifacts.folder` implement it; `tests/shared/artifacts/test_store.py` tests what both must do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


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
        """Returns the object's bytes; raises NotFound."""

    def get_file(self, key: str, path: Path) -> None:
        """Writes the bytes of an object of any size to a file; raises NotFound."""

    def exists(self, key: str) -> bool:
        """Returns whether the object exists."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yields the keys that begin with `prefix`, in order."""

    def delete(self, key: str) -> None:
        """Removes an object if it exists."""
