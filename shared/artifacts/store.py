"""Defines the store: objects by key, and create-if-absent, on which all commits rely.

`shared.artifacts.s3` and `shared.artifacts.folder` implement it; `tests/shared/artifacts/test_store.py` tests what both must do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from shared.errors import ArtifactError

LARGEST_IN_MEMORY = 64 << 20  # bytes; a manifest has at most a few megabytes


class NotFound(Exception):
    """Says that no object has that key. Callers turn it into an error for people if it is one."""


class Stored(NamedTuple):
    """Describes an object."""

    key: str
    size: int
    """Counts its bytes."""
    age: float
    """Counts the seconds since it was last written, both times by the store's own clock."""


class Unfinished(NamedTuple):
    """Describes a write that has not ended, of a process that is still at it or was killed."""

    key: str
    """Names the object that it would become; in a folder, the temporary file."""
    id: str
    """Tells several writes of one key apart."""
    age: float
    """Counts the seconds since the store last received bytes of it, by its own clock."""


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

    def digest(self, key: str) -> str:
        """Returns the SHA-256 of the object's bytes, which are read and not kept; raises NotFound."""

    def stat(self, key: str) -> Stored | None:
        """Returns the object's size and age, or None if it does not exist."""

    def scan(self, prefix: str) -> Iterator[Stored]:
        """Yields the objects whose keys begin with `prefix`, in no order, without holding them all in memory."""

    def move(self, key: str, target: str) -> None:
        """Gives an object another key, under which its age begins again; raises NotFound. A killed process may leave it under both."""

    def unfinished(self) -> Iterator[Unfinished]:
        """Yields the writes that have not ended."""

    def abandon(self, write: Unfinished) -> None:
        """Removes what the store holds of an unfinished write; its process, if there is one, fails."""


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


def folders_among(empty: Collection[str], keys: Iterable[str]) -> set[str]:
    """Returns those keys of empty objects that stand for a folder, as one of `keys` lies below them."""
    if not empty:
        return set()
    return {parent for key in keys for parent in _parents(key) if parent in empty}


def _parents(key: str) -> Iterator[str]:
    while "/" in key:
        key = key.rpartition("/")[0]
        yield key
