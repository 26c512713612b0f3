"""Computes a digest of a source's files, which is part of `prepare`'s key: data that changed under the same name is prepared again.

The digest is the same for a local folder and its copy in a bucket, so that a study goes on wherever its data is stored.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from shared.artifacts.hub_location import fetched_folder, is_hub
from shared.artifacts.open import is_s3, open_bucket, split_s3
from shared.artifacts.remote import expanded
from shared.artifacts.store import NotFound, folders_among
from shared.config.dataset import Dataset
from shared.data.sources.members import is_data, left_behind
from shared.digests import file_digest
from shared.errors import ConfigError, DataError, UnavailableError
from shared.log import Log
from shared.parallel import in_threads
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.artifacts.s3 import S3Store

PARALLEL = 16  # reads at once; label files are small, so that most of the time is spent on round trips
END, SLASH = b"\0\0", b"\0\1"
"""End the name, and a part of the name, of an entry."""

log = Log("data")


def source_digest(dataset: Dataset, settings: Settings) -> str | None:
    """Returns the SHA-256 of the names of all files of the data set, with the content of label files and the sizes of all others.

    `members.py` says which files below the root belong to it.

    Returns None if the source has no root, as drawn images have no files. Raises DataError if the root does not exist or is empty, and what the
    bucket raises. An image that is edited in place and keeps its size is not noticed: use `--rerun prepare`.
    """
    if dataset.root is None:
        return None
    described: Iterable[bytes]
    if is_s3(dataset.root):
        described = _in_bucket(open_bucket(*split_s3(dataset.root), settings), dataset.label_endings)
    elif is_hub(dataset.root):
        described = _in_folder(fetched_folder(dataset.root, settings), dataset.root, dataset.label_endings)
    else:
        described = _in_folder(expanded(dataset.root), dataset.root, dataset.label_endings)
    entries = sorted(described)
    if not entries:
        raise DataError(
            f"dataset.root: {dataset.root} holds no file; name the folder of the images with --set dataset.root=DIR"
        )
    digest = hashlib.sha256()
    for number, entry in enumerate(entries):
        line = f"{_name(entry)} {entry.partition(END)[2].decode()}"
        digest.update(f"\n{line}"[number == 0 :].encode(errors="surrogateescape"))  # some names may be no UTF-8
    return digest.hexdigest()


def check_outside(path: Path, root: str | None, remedy: str) -> None:
    """Raises ConfigError if `path`, which is to be written, lies below the root, where it would count as data that changes with each run."""
    if root and not is_s3(root) and not is_hub(root) and path.resolve().is_relative_to(expanded(root).resolve()):
        raise ConfigError(f"{path}: lies inside of the data, {root}, whose files count as data; {remedy}")


def is_label_file(name: str, endings: Collection[str]) -> bool:
    """Returns whether a file counts by its content, not by its size: its name has one of the `endings`, in any case."""
    return PurePosixPath(name).suffix.lower() in endings


def _entry(name: str, value: str) -> bytes:
    """Returns a file's name and what counts of it as one value, which takes a tenth of the memory of both.

    Entries sort as the names' parts do: what ends a part is below all that a part may hold.
    """
    return name.encode(errors="surrogatepass").replace(b"/", SLASH) + END + value.encode()


def _name(entry: bytes) -> str:
    """Returns the name of an entry."""
    return entry.partition(END)[0].replace(SLASH, b"/").decode(errors="surrogatepass")


def _in_folder(root: Path, named: str, endings: Collection[str]) -> Iterator[bytes]:
    if not root.is_dir():
        raise DataError(f"dataset.root: there is no folder {named}; name it with --set dataset.root=DIR")
    count = log.counter("sizes of files read", "files")
    for parent, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not left_behind(name)]
        below = "" if parent == str(root) else f"{Path(parent).relative_to(root).as_posix()}/"
        for name in names:
            count()
            path = Path(parent, name)
            if is_data(name) and (size := _file_size(path)) is not None:
                yield _entry(below + name, file_digest(path) if is_label_file(name, endings) else str(size))


def _file_size(path: Path) -> int | None:
    """Returns a file's bytes; None if there is no file, as behind a link that leads nowhere. A second look at each of a million files counts."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _in_bucket(store: S3Store, endings: Collection[str]) -> list[bytes]:
    """Returns the entries of all files. The listing is not held, and label files are read while it goes on."""
    entries, empty = list[bytes](), set[str]()
    count = log.counter("objects of the bucket listed", "objects")

    def label_files() -> Iterator[str]:
        for file in store.stream():
            count()
            if file.key.endswith("/") or not is_data(file.key):
                continue
            if file.size == 0:
                empty.add(file.key)
            if is_label_file(file.key, endings):
                yield file.key
            else:
                entries.append(_entry(file.key, str(file.size)))

    def digest(key: str) -> str:
        try:
            return store.digest(key)
        except NotFound:
            raise UnavailableError(f"{store.url}/{key}: was removed while it was read; run again") from None

    with closing(in_threads(digest, label_files(), PARALLEL)) as read:
        entries.extend(_entry(key, value) for key, value in read)
    folders = folders_among(empty, map(_name, entries))
    return [entry for entry in entries if _name(entry) not in folders] if folders else entries
