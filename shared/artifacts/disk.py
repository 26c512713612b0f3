"""Local disk: what its errors mean to a person, and files that appear whole or not at all."""

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
    """Turns a full disk into UnavailableError (space may be made) and any other refusal of the disk into ArtifactError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise UnavailableError(
                f"{path}: the disk is full ({error.strerror}); free some space there and run the same command again"
            ) from error
        raise ArtifactError(
            f"{path}: cannot be written or read ({error.strerror or error}); mend its permissions or choose another folder"
        ) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and vanishes when it does not.

    Of several writers the last wins; no reader sees a part. Raises as disk_errors.
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
