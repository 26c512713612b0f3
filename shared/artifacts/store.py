"""The store: named bytes, and the one promise that everything rests on, create-if-absent.

Implementations: `shared.artifacts.s3` and `shared.artifacts.folder`; `tests/shared/artifacts/test_store.py` is the contract.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class NotFound(Exception):
    """No object has that key. Callers decide what it means; it never reaches a person as it is."""


class Store(Protocol):
    """A flat space of objects by key (`a/b/c`). Safe to use from several threads and processes.

    All methods raise UnavailableError after bounded retries when the server is away, and ArtifactError where it refuses for good.
    """

    @property
    def url(self) -> str:
        """Where it is, without secrets: `s3://bucket/prefix` or a path."""

    def put(self, key: str, data: bytes) -> None:
        """Writes an object, whole or not at all, over any older one."""

    def put_file(self, key: str, path: Path) -> None:
        """Like put, from a file of any size."""

    def create(self, key: str, data: bytes) -> bool:
        """Writes an object only where there is none; False where there was. Of several racers exactly one gets True."""

    def get(self, key: str) -> bytes:
        """The object's bytes; raises NotFound."""

    def get_file(self, key: str, path: Path) -> None:
        """Writes the object's bytes to a file, for objects of any size; raises NotFound."""

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that begin with `prefix`, in order."""

    def delete(self, key: str) -> None:
        """Removes an object; nothing happens where there is none."""
