"""A fingerprint of a source's files, part of `prepare`'s key: data that changed under the same name is prepared again.

It is the same for a folder here and its copy in a bucket, so that a study goes on wherever its data lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from shared.artifacts.open import is_s3, split_s3
from shared.artifacts.store import NotFound
from shared.config.dataset import Dataset, GarmentsSource
from shared.errors import ConfigError, DataError, UnavailableError
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.artifacts.s3 import Listed, S3Store

LABELS = {".csv", ".txt", ".tsv"}  # read whole: an edited label seldom changes the size
PARALLEL = 16  # reads at once; label files are small, so that round trips take the time


def source_digest(dataset: Dataset, settings: Settings) -> str | None:
    """SHA-256 over the names of all files below the root, with the content of label files and the sizes of all others.

    None for drawn garments, which have no files. Raises DataError where the root does not exist or holds nothing, and what the bucket
    raises. An image that is edited in place and keeps its size goes unnoticed: `--rerun prepare`.
    """
    if isinstance(dataset, GarmentsSource):
        return None
    if is_s3(dataset.root):
        from shared.artifacts.s3 import S3Store

        files = _in_bucket(S3Store(*split_s3(dataset.root), settings))
    else:
        files = _in_folder(Path(dataset.root).expanduser(), dataset.root)
    if not files:
        raise DataError(
            f"dataset.root: {dataset.root} holds no file; name the folder of the images with --set dataset.root=DIR"
        )
    lines = (f"{name} {files[name]}" for name in sorted(files, key=lambda name: name.split("/")))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_outside(path: Path, root: str, remedy: str) -> None:
    """Raises ConfigError where what is to be written at `path` would be data itself, other at each run, since it lies below the root."""
    if root and not is_s3(root) and path.resolve().is_relative_to(Path(root).expanduser().resolve()):
        raise ConfigError(f"{path}: lies inside of the data, {root}, where every file counts as data; {remedy}")


def is_label_file(name: str) -> bool:
    """Whether a file counts by its content, not by its size."""
    return PurePosixPath(name).suffix.lower() in LABELS


def _in_folder(root: Path, named: str) -> Mapping[str, str]:
    if not root.is_dir():
        raise DataError(f"dataset.root: there is no folder {named}; name it with --set dataset.root=DIR")
    return {path.relative_to(root).as_posix(): _local(path) for path in root.rglob("*") if path.is_file()}


def _local(path: Path) -> str:
    if is_label_file(path.name):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return str(path.stat().st_size)


def _in_bucket(store: S3Store) -> Mapping[str, str]:
    def described(file: Listed) -> str:
        if not is_label_file(file.key):
            return str(file.size)
        try:
            return store.digest(file.key)
        except NotFound:
            raise UnavailableError(f"{store.url}/{file.key}: vanished while it was read; run again") from None

    found = store.files()
    with ThreadPoolExecutor(PARALLEL) as pool:
        return dict(zip((file.key for file in found), pool.map(described, found), strict=True))
