"""Implements the store in a folder: for one machine, or for a file system that several share.

Objects are files named by their key. A write goes to `.incoming/` first and is then moved to its key, so that no reader sees a partial object.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.artifacts.disk import disk_errors
from shared.artifacts.store import NotFound, check_size, too_long
from shared.errors import ArtifactError
from shared.names import path_below

INCOMING = ".incoming"


class FolderStore:
    """Implements `shared.artifacts.store.Store`; the file system must have hard links, which `create` uses."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        with disk_errors(self.root):
            (self.root / INCOMING).mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Returns the path of the folder."""
        return str(self.root)

    def put(self, key: str, data: bytes) -> None:
        """Writes an object, whole or not at all, and replaces an existing one."""
        self._write(key, lambda temporary: temporary.write_bytes(data))

    def put_file(self, key: str, path: Path) -> None:
        """Writes an object from a file of any size, as `put` does."""
        self._write(key, lambda temporary: shutil.copyfile(path, temporary))

    def create(self, key: str, data: bytes) -> bool:
        """Writes an object if the key has none, by a hard link, which exactly one of several concurrent calls can make."""
        target = self._path(key)
        with disk_errors(target), self._incoming() as temporary:
            temporary.write_bytes(data)
            _flush(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                    raise
                raise ArtifactError(
                    f"{self.root}: its file system has no hard links, which the commit of a stage needs; "
                    "set TAILFILL_STORE to a folder elsewhere or to s3://bucket"
                ) from error
            return True

    def get(self, key: str) -> bytes:
        """Returns the object's bytes; raises NotFound, and ArtifactError if there are more than LARGEST_IN_MEMORY."""
        path = self._path(key)
        with disk_errors(path), _not_found(key):
            check_size(path.stat().st_size, f"{self.url}/{key}")
            return path.read_bytes()

    def get_file(self, key: str, path: Path, size: int | None = None) -> None:
        """Writes the object's bytes to a file; raises NotFound, and ArtifactError if there are more than `size`."""
        source = self._path(key)
        if not self.exists(key):
            raise NotFound(key)
        with disk_errors(path):
            if size is not None and source.stat().st_size > size:
                raise too_long(f"{self.url}/{key}", size)
            shutil.copyfile(source, path)

    def exists(self, key: str) -> bool:
        """Returns whether the object exists."""
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        """Yields the keys that begin with `prefix`, in order."""
        folder = prefix.rpartition("/")[0]
        top = self._path(folder) if folder else self.root
        keys = (
            (Path(folder) / name).relative_to(self.root).as_posix()
            for folder, _, names in os.walk(top)
            for name in names
        )
        yield from sorted(k for k in keys if k.startswith(prefix) and not k.startswith(f"{INCOMING}/"))

    def delete(self, key: str) -> None:
        """Removes an object if it exists."""
        path = self._path(key)
        with disk_errors(path):
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        path = path_below(self.root, key, self.url)
        if key.split("/")[0] == INCOMING:
            raise ArtifactError(f"{self.root}: {key!r} is no key of an object, but an unfinished write; remove it")
        return path

    def _write(self, key: str, write: Callable[[Path], object]) -> None:
        target = self._path(key)
        with disk_errors(target), self._incoming() as temporary:
            write(temporary)
            _flush(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, target)

    @contextmanager
    def _incoming(self) -> Iterator[Path]:
        handle, name = tempfile.mkstemp(dir=self.root / INCOMING)
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)


@contextmanager
def _not_found(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFound(key) from None


def _flush(path: Path) -> None:
    """Writes a file through to the disk, so that after a power failure no manifest exists without its blobs."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
