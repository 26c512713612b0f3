"""Arrays in files of a node-local folder, shared by its processes: never more bytes than allowed, the longest unused go first."""

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
from shared.names import path_below

ABANDONED = 3600.0
"""Seconds after which a file that nobody finished is one of a killed process."""
LOCK = ".lock"

log = Log("classifier")


@dataclass(frozen=True)
class FeatureCache:
    """Arrays by name. What is read may have gone a moment later, which is why a reader is ready to compute it."""

    folder: Path
    limit: float
    """Bytes of all files together; only files that are being written, one a process, come on top."""

    def read(self, name: str, n: int, dtype: np.dtype[np.generic]) -> NDArray[np.generic] | None:
        """The array of that name, mapped from its file, where there is one of n rows of this type."""
        path = self._path(name)
        try:
            found: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
            os.utime(path)  # used just now
        except FileNotFoundError:
            return None
        except (ValueError, EOFError, OSError) as error:
            log.warning("a cached block cannot be read and is made anew", path=path, reason=str(error))
            return None
        return found if found.dtype == dtype and len(found) == n else None

    def write(self, name: str, values: NDArray[np.generic]) -> None:
        """Keeps an array, whole or not at all; makes room first. Without room, or on a full disk, it is not kept."""
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
            log.warning("a computed block cannot be kept for others", path=path, reason=str(error))

    def _path(self, name: str) -> Path:
        return path_below(self.folder, f"{name[:2]}/{name}.npy", "cached block")

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time; the kernel lets go of it when its holder dies."""
        with (self.folder / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make_room(self, size: int) -> bool:
        """Removes the longest unused files until `size` bytes fit; False where they never would."""
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
        """Time of last use, size and path of each finished or abandoned file."""
        for path in self.folder.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # its writer is done with it
                found = path.stat()
                if path.suffix == ".npy" or time.time() - found.st_mtime > ABANDONED:
                    yield found.st_mtime, found.st_size, path
