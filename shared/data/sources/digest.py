"""Computes a digest of a source's files, which is part of `prepare`'s key: data that changed under the same name is prepared again.

The digest is the same for a local folder and its copy in a bucket, so that a study goes on wherever its data is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from shared.artifacts.open import is_s3, open_bucket, split_s3
from shared.artifacts.remote import expanded
from shared.artifacts.store import NotFound
from shared.config.dataset import Dataset
from shared.data.sources.members import is_data
from shared.digests import file_digest
from shared.errors import ConfigError, DataError, UnavailableError
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.artifacts.s3 import Listed, S3Store

PARALLEL = 16  # reads at once; label files are small, so that most of the time is spent on round trips


def source_digest(dataset: Dataset, settings: Settings) -> str | None:
    """Returns the SHA-256 of the names of all files of the data set, with the content of label files and the sizes of all others.

    `members.py` says which files below the root belong to it.

    Returns None if the source has no root, as drawn images have no files. Raises DataError if the root does not exist or is empty, and what the
    bucket raises. An image that is edited in place and keeps its size is not noticed: use `--rerun prepare`.
    """
    if dataset.root is None:
        return None
    if is_s3(dataset.root):
        files = _in_bucket(open_bucket(*split_s3(dataset.root), settings), dataset.label_endings)
    else:
        files = _in_folder(expanded(dataset.root), dataset.root, dataset.label_endings)
    if not files:
        raise DataError(
            f"dataset.root: {dataset.root} holds no file; name the folder of the images with --set dataset.root=DIR"
        )
    lines = (f"{name} {files[name]}" for name in sorted(files, key=lambda name: name.split("/")))
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()  # some names may be no UTF-8


def check_outside(path: Path, root: str | None, remedy: str) -> None:
    """Raises ConfigError if `path`, which is to be written, lies below the root, where it would count as data that changes with each run."""
    if root and not is_s3(root) and path.resolve().is_relative_to(expanded(root).resolve()):
        raise ConfigError(f"{path}: lies inside of the data, {root}, whose files count as data; {remedy}")


def is_label_file(name: str, endings: Collection[str]) -> bool:
    """Returns whether a file counts by its content, not by its size: its name has one of the `endings`, in any case."""
    return PurePosixPath(name).suffix.lower() in endings


def _in_folder(root: Path, named: str, endings: Collection[str]) -> Mapping[str, str]:
    if not root.is_dir():
        raise DataError(f"dataset.root: there is no folder {named}; name it with --set dataset.root=DIR")
    files = ((path.relative_to(root).as_posix(), path) for path in root.rglob("*") if path.is_file())
    return {name: _local(path, endings) for name, path in files if is_data(name)}


def _local(path: Path, endings: Collection[str]) -> str:
    if is_label_file(path.name, endings):
        return file_digest(path)
    return str(path.stat().st_size)


def _in_bucket(store: S3Store, endings: Collection[str]) -> Mapping[str, str]:
    def described(file: Listed) -> str:
        if not is_label_file(file.key, endings):
            return str(file.size)
        try:
            return store.digest(file.key)
        except NotFound:
            raise UnavailableError(f"{store.url}/{file.key}: was removed while it was read; run again") from None

    found = [file for file in store.files() if is_data(file.key)]
    with ThreadPoolExecutor(PARALLEL) as pool:
        return dict(zip((file.key for file in found), pool.map(described, found), strict=True))
