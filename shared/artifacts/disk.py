"""Writes to local disk: turns its errors into ours, and makes files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import ArtifactError, UnavailableError

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raises UnavailableError if the disk is full, as space may be freed, and ArtifactError for any other OSError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise UnavailableError(
                f"{path}: the disk is full ({error.strerror}); free some space there and run the same command again"
            ) from error
        raise ArtifactError(
            f"{path}: cannot be written or read ({error.strerror or error}); fix its permissions or choose another folder"
        ) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary file that replaces `path` at the end of the block, or is removed if the block raises.

    Of several writers the last wins; no reader sees a partial file. Raises what disk_errors raises.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".part-", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
