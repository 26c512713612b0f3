"""A cache of arrays in files of a node-local folder, which all processes on the node share.

It never exceeds its limit in bytes: the least recently used files are removed first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.log import Log
from shared.names import checked_part, path_below

ABANDONED = 3600.0
"""Seconds after which an unfinished file is taken to be that of a killed process."""
LOCK = ".lock"

log = Log("classifier")


@dataclass(frozen=True)
class FeatureCache:
    """Arrays by name. Another process may remove one at any time, so a reader must be able to compute it again."""

    folder: Path
    limit: float
    """The most bytes of all files together, apart from those being written, one per process."""

    def read(self, name: str, n: int, dtype: np.dtype[np.generic]) -> NDArray[np.generic] | None:
        """Returns the array of that name, memory-mapped, or None if there is none of n rows of this type."""
        path = self._path(name)
        try:
            found: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
            os.utime(path)  # marks it as recently used
        except FileNotFoundError:
            return None
        except (ValueError, EOFError, OSError) as error:
            log.warning("a cached block cannot be read and is computed again", path=path, reason=str(error))
            return None
        return found if found.dtype == dtype and len(found) == n else None

    def write(self, name: str, values: NDArray[np.generic]) -> None:
        """Writes an array atomically after removing old ones; does nothing if it cannot fit or the disk is full."""
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".part-", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    np.save(file, values)
                with self._lock():
                    if self._make_room(os.path.getsize(temporary)):
                        os.replace(temporary, path)
            finally:
                Path(temporary).unlink(missing_ok=True)
        except OSError as error:
            log.warning("a computed block cannot be cached", path=path, reason=str(error))

    def _path(self, name: str) -> Path:
        own = checked_part(name, "cached block")
        return path_below(self.folder, f"{own[:2]}/{own}.npy", "cached block")

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Holds a lock between processes; the kernel releases it if its holder dies."""
        with (self.folder / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make_room(self, size: int) -> bool:
        """Removes the least recently used files until `size` bytes fit; returns False if they never would."""
        files = sorted(self._files())
        used = sum(bytes_ for _, bytes_, _ in files)
        if size > self.limit:
            return False
        for _, bytes_, path in files:
            if used + size <= self.limit:
                break
            path.unlink(missing_ok=True)
            used -= bytes_
        return True

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Yields the time of last use, size and path of each finished or abandoned file."""
        for path in self.folder.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # its writer has just renamed or removed it
                found = path.stat()
                if path.suffix == ".npy" or time.time() - found.st_mtime > ABANDONED:
                    yield found.st_mtime, found.st_size, path
