"""A fingerprint of a source's files, part of `prepare`'s key: data that changed under the same name is prepared again."""

from __future__ import annotations

import hashlib
from pathlib import Path

from shared.artifacts.open import is_s3, split_s3
from shared.config.dataset import Dataset, GarmentsSource
from shared.errors import DataError
from shared.settings import Settings

LABELS = {".csv", ".txt", ".tsv"}  # read whole: an edited label seldom changes the size


def source_digest(dataset: Dataset, settings: Settings) -> str | None:
    """SHA-256 over the names and sizes of all files below the root (on S3: names and ETags) and the content of label files.

    None for drawn garments, which have no files. Raises DataError where the root does not exist. An image that is edited in place and
    keeps its size goes unnoticed: `--rerun prepare`.
    """
    if isinstance(dataset, GarmentsSource):
        return None
    if is_s3(dataset.root):
        from shared.artifacts.s3 import S3Store

        entries = [f"{key} {etag}" for key, etag in S3Store(*split_s3(dataset.root), settings).etags()]
    else:
        root = Path(dataset.root).expanduser()
        if not root.is_dir():
            raise DataError(f"dataset.root: there is no folder {dataset.root}; name it with --set dataset.root=DIR")
        entries = [_entry(path, root) for path in sorted(root.rglob("*")) if path.is_file()]
    if not entries:
        raise DataError(
            f"dataset.root: {dataset.root} holds no file; name the folder of the images with --set dataset.root=DIR"
        )
    return hashlib.sha256("\n".join(entries).encode()).hexdigest()


def _entry(path: Path, root: Path) -> str:
    name = path.relative_to(root).as_posix()
    if path.suffix.lower() in LABELS:
        with path.open("rb") as file:
            return f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}"
    return f"{name} {path.stat().st_size}"
