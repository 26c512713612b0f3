"""Writes to local disk: turns its errors into ours, and makes files appear whole or not at all.

`lack_of_room` alone knows by which exceptions Python and the libraries that write for us say that a disk takes no more. All that a stage
writes is within `room_errors`, as is all that a command writes; a path that a person named is within `disk_errors`.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import ArtifactError, ConfigError, UnavailableError

LACKS = {
    errno.ENOSPC: ("the disk is full", "free some space there"),
    errno.EDQUOT: ("the disk is full for this user, whose quota is used up", "free some space there"),
    errno.EFBIG: ("the file is larger than the file system or a limit (ulimit -f) allows", "raise that limit"),
    errno.EROFS: ("the file system is read-only", "mount it for writing or choose another folder"),
}
"""Maps the error numbers that a later run may not meet to what is wrong and what helps."""
IN_RUST = re.compile(r"\(os error (\d+)\)")
"""Finds the error number in the messages of libraries written in Rust, such as safetensors, which raise no OSError."""
LITTLE_ROOM = 100e6  # bytes
NO_FOLDER = "No usable temporary directory"
"""Begins the message of `tempfile` if it can write nowhere."""


def lack_of_room(error: BaseException, path: Path | None = None) -> UnavailableError | None:
    """Returns the error to raise if a disk took no more, or None if `error` says something else.

    `path` is what was written, or the folder in which it was; the file that `error` itself names comes first.
    """
    if isinstance(error, OSError) and NO_FOLDER in str(error):
        return UnavailableError(
            "TMPDIR: no folder for temporary files can be written to, as all disks are full or read-only; free some space, or set "
            "TMPDIR to a folder that can, and run the same command again"
        )
    number = _number(error)
    if number not in LACKS:
        return None
    named = getattr(error, "filename2", None) or getattr(error, "filename", None)  # the second is the target of a copy
    at = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else path
    what, remedy = LACKS[number]
    return UnavailableError(f"{at or 'a file'}: {what}{_room(at)}; {remedy} and run the same command again")


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    if isinstance(error, sqlite3.Error):
        return {sqlite3.SQLITE_FULL: errno.ENOSPC}.get(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK))
    found = IN_RUST.search(str(error))
    return int(found[1]) if found else None


def _room(path: Path | None) -> str:
    """Returns how much room there is at a path, or at the nearest folder that exists, as a part of a sentence."""
    for folder in (path, *path.absolute().parents) if path is not None else ():
        try:
            usage = shutil.disk_usage(folder)
        except OSError:
            continue
        return f" ({usage.free / 1e6:,.1f} of {usage.total / 1e6:,.1f} MB are free)"
    return ""


@contextmanager
def room_errors(path: Path) -> Iterator[None]:
    """Raises UnavailableError if a disk takes no more while something is written at or below `path`; lets all other errors through."""
    try:
        yield
    except Exception as error:
        if (unavailable := lack_of_room(error, path)) is None:
            raise
        raise unavailable from error


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raises UnavailableError if the disk takes no more, as space may be freed, and ArtifactError for any other OSError."""
    try:
        with room_errors(path):
            yield
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be written or read ({error.strerror or error}); fix its permissions or choose another folder"
        ) from error


def check_empty_folder(folder: Path) -> None:
    """Raises ConfigError unless `folder` is an empty folder or is not there yet, and what disk_errors raises if it cannot be listed."""
    with disk_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder}: is not an empty folder; name a new or an empty one")


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Adds to an UnavailableError that the disk of `folder` has little room, since servers whose data are there do not tell that cause.

    SeaweedFS answers 500 then, and PostgreSQL ends. What this process itself cannot write there is named as by `room_errors`.
    """
    try:
        with room_errors(folder):
            yield
    except UnavailableError as error:
        if LACKS[errno.ENOSPC][0] in str(error) or not _little_room(folder):
            raise
        raise UnavailableError(
            f"{error}; {folder}: the disk has little room{_room(folder)}, which may be the cause: free some space there or choose a larger one"
        ) from error


def _little_room(folder: Path) -> bool:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return False
    return usage.free < LITTLE_ROOM + usage.total / 100  # SeaweedFS keeps a hundredth free


@contextmanager
def whole_file(path: Path, private: bool = True) -> Iterator[Path]:
    """Yields a temporary file that replaces `path` at the end of the block, or is removed if the block raises.

    If it is `private`, only its owner may read it. Of several writers the last wins; no reader sees a partial file. Raises what disk_errors raises.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".part-{secrets.token_hex(8)}"
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if private else 0o666))
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
